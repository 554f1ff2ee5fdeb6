module interop.test/v2

go 1.21

require (
	golang.ngrok.com/muxado/v2 v2.0.1
	interop.test/peer v0.0.0
)

replace interop.test/peer => ../go_peer
