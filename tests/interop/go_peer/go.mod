module interop.test/peer

go 1.21
