//! One face for the crate's plain, typed and heartbeating sessions, and a transport that tells
//! how it ended, since the crate does not.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Duration,
};

use muxado::{
    Accept, Error, MuxadoAccept, MuxadoOpen, OpenClose, Session as _, SessionBuilder, Stream,
    heartbeat::{Heartbeat, HeartbeatConfig, HeartbeatCtl},
    typed::{StreamType, Typed, TypedAccept, TypedOpenClose, TypedSession, TypedStream},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use crate::Options;

/// How a session ended: what its transport and its heartbeat saw.
#[derive(Clone, Debug, Default)]
pub struct Ending {
    /// Nobody broke anything: a GOAWAY without an error, or an end between two frames.
    pub clean: bool,
    pub error: String,
    /// The code of a GOAWAY that came.
    pub goaway: Option<u32>,
    pub beats: i64,
    pub missed: i64,
}

impl Ending {
    pub fn failed(error: &str) -> Self {
        Ending {
            error: error.into(),
            ..Default::default()
        }
    }

    pub fn json(&self) -> String {
        let Ending {
            clean,
            error,
            goaway,
            beats,
            missed,
        } = self;
        let code = goaway.unwrap_or(0);
        format!(
            r#"{{"clean":{clean},"error":{error:?},"goaway":{},"remote":{code},"beats":{beats},"missed":{missed}}}"#,
            goaway.is_some(),
        )
    }
}

/// Follows the frames that come in, as far as to tell a GOAWAY and the gap between two frames.
#[derive(Default)]
struct Frames {
    header: Vec<u8>,
    body: Vec<u8>,
    goaway: Option<u32>,
}

impl Frames {
    fn feed(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            if self.header.len() < 8 {
                let (part, rest) = data.split_at(data.len().min(8 - self.header.len()));
                self.header.extend(part);
                data = rest;
            }
            if self.header.len() == 8 {
                let length =
                    u32::from_be_bytes([0, self.header[0], self.header[1], self.header[2]]);
                let missing = length as usize - self.body.len();
                let (part, rest) = data.split_at(data.len().min(missing));
                self.body.extend(part);
                data = rest;
                if part.len() == missing {
                    if let (0x30, Some(code)) = (self.header[3], self.body.get(4..8)) {
                        self.goaway = code.try_into().map(u32::from_be_bytes).ok();
                    }
                    self.header.clear();
                    self.body.clear();
                }
            }
        }
    }
}

/// What is learnt about a session beside the crate's own interface.
#[derive(Default)]
struct Seen {
    frames: Mutex<Frames>,
    transport: Mutex<Option<Result<(), String>>>,
    closed_here: AtomicBool,
    beats: AtomicI64,
    missed: AtomicI64,
}

/// A transport that remembers whether it came to an end or to an error.
struct Watched {
    inner: TcpStream,
    seen: Arc<Seen>,
}

impl Watched {
    fn ended(&self, how: Result<(), &io::Error>) {
        let mut transport = self.seen.transport.lock().expect("never poisoned");
        transport.get_or_insert_with(|| how.map_err(|error| error.to_string()));
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        match &polled {
            Poll::Ready(Ok(())) if buf.filled().len() == before => self.ended(Ok(())),
            Poll::Ready(Ok(())) => {
                self.seen
                    .frames
                    .lock()
                    .expect("never poisoned")
                    .feed(&buf.filled()[before..]);
            }
            Poll::Ready(Err(error)) => self.ended(Err(error)),
            Poll::Pending => {}
        }
        polled
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

enum Opener {
    Plain(MuxadoOpen),
    Typed(Typed<MuxadoOpen>),
    Beating(Heartbeat<Typed<MuxadoOpen>>),
}

pub enum Acceptor {
    Plain(MuxadoAccept),
    Typed(Typed<MuxadoAccept>),
    Beating(Heartbeat<Typed<MuxadoAccept>>),
}

impl Acceptor {
    /// The next stream of the other end and its type, 0 in a session without types.
    pub async fn accept(&mut self) -> Option<(AnyStream, u32)> {
        let typed = match self {
            Acceptor::Plain(acceptor) => {
                return acceptor.accept().await.map(|s| (AnyStream::Plain(s), 0));
            }
            Acceptor::Typed(acceptor) => acceptor.accept_typed().await,
            Acceptor::Beating(acceptor) => acceptor.accept_typed().await,
        };
        let stream = typed.ok()?;
        let kind = *stream.typ();
        Some((AnyStream::Typed(stream), kind))
    }
}

/// A stream of either kind of session.
pub enum AnyStream {
    Plain(Stream),
    Typed(TypedStream),
}

impl AnyStream {
    fn inner(self: Pin<&mut Self>) -> Pin<&mut Stream> {
        match self.get_mut() {
            AnyStream::Plain(stream) => Pin::new(stream),
            AnyStream::Typed(stream) => Pin::new(&mut **stream),
        }
    }
}

impl AsyncRead for AnyStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.inner().poll_read(cx, buf)
    }
}

impl AsyncWrite for AnyStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.inner().poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner().poll_shutdown(cx)
    }
}

pub struct Session {
    opener: tokio::sync::Mutex<Option<Opener>>,
    default_type: u32,
    seen: Arc<Seen>,
    /// Dropping it would end the heartbeat.
    _beating: Option<HeartbeatCtl>,
}

impl Session {
    pub async fn start(
        conn: TcpStream,
        client: bool,
        options: &Options,
    ) -> Result<(Self, Acceptor), String> {
        let seen = Arc::new(Seen::default());
        let builder = SessionBuilder::new(Watched {
            inner: conn,
            seen: seen.clone(),
        });
        let raw = if client {
            builder.client()
        } else {
            builder.server()
        }
        .start();
        let mut control = None;
        let (opener, acceptor) = if options.heartbeat {
            let counter = seen.clone();
            let config = HeartbeatConfig {
                interval: options.interval,
                tolerance: options.tolerance,
                handler: Some(Arc::new(move |latency: Option<Duration>| {
                    let counter = if latency.is_some() {
                        &counter.beats
                    } else {
                        &counter.missed
                    };
                    counter.fetch_add(1, SeqCst);
                    async { Ok(()) }
                })),
            };
            let (beating, ctl) = Heartbeat::start(Typed::new(raw), config)
                .await
                .map_err(|e| e.to_string())?;
            control = Some(ctl);
            let (opener, acceptor) = beating.split_typed();
            (Opener::Beating(opener), Acceptor::Beating(acceptor))
        } else if options.typed {
            let (opener, acceptor) = Typed::new(raw).split_typed();
            (Opener::Typed(opener), Acceptor::Typed(acceptor))
        } else {
            let (opener, acceptor) = raw.split();
            (Opener::Plain(opener), Acceptor::Plain(acceptor))
        };
        let default_type = u32::from(options.typed || options.heartbeat);
        let opener = tokio::sync::Mutex::new(Some(opener));
        Ok((
            Session {
                opener,
                default_type,
                seen,
                _beating: control,
            },
            acceptor,
        ))
    }

    pub async fn open(&self) -> Result<AnyStream, String> {
        self.open_typed(self.default_type).await
    }

    pub async fn open_typed(&self, kind: u32) -> Result<AnyStream, String> {
        let kind = StreamType::clamp(kind);
        match self.opener.lock().await.as_mut() {
            Some(Opener::Plain(opener)) => opener.open().await.map(AnyStream::Plain),
            Some(Opener::Typed(opener)) => opener.open_typed(kind).await.map(AnyStream::Typed),
            Some(Opener::Beating(opener)) => opener.open_typed(kind).await.map(AnyStream::Typed),
            None => Err(Error::SessionClosed),
        }
        .map_err(|error| format!("open: {error}"))
    }

    /// Sends a GOAWAY, which for this crate is the end of the session.
    ///
    /// The crate writes the transport's end only when the last part of the session is dropped,
    /// and dropping it too early takes the GOAWAY along: there is nothing to wait for but time.
    pub async fn close(&self, code: u32) {
        self.seen.closed_here.store(true, SeqCst);
        let code = match code {
            0 => Error::None,
            2 => Error::Internal,
            10 => Error::EnhanceYourCalm,
            _ => panic!("no scenario ends a session with {code}"),
        };
        let message = String::from("closed by the Rust peer");
        let Some(mut opener) = self.opener.lock().await.take() else {
            return;
        };
        let _ = match &mut opener {
            Opener::Plain(opener) => opener.close(code, message).await,
            Opener::Typed(opener) => TypedOpenClose::close(opener, code, message).await,
            Opener::Beating(opener) => opener.close(code, message).await,
        };
        tokio::time::sleep(Duration::from_millis(200)).await;
    }

    pub fn closed_here(&self) -> bool {
        self.seen.closed_here.load(SeqCst)
    }

    /// Whether the other end has ended the session. `open` is no witness: it works even then.
    pub fn ended(&self) -> bool {
        let goaway = self.seen.frames.lock().expect("never poisoned").goaway;
        goaway.is_some()
            || self
                .seen
                .transport
                .lock()
                .expect("never poisoned")
                .is_some()
    }

    pub fn ending(&self) -> Ending {
        let frames = self.seen.frames.lock().expect("never poisoned");
        let goaway = frames.goaway;
        let between_frames = frames.header.is_empty();
        let (ended_well, error) = match self.seen.transport.lock().expect("never poisoned").clone()
        {
            _ if goaway.is_some() => (goaway == Some(0), "GOAWAY".into()),
            _ if self.closed_here() => (true, "closed here".into()),
            Some(Ok(())) => (between_frames, "EOF".into()),
            Some(Err(error)) => (false, error),
            None => (false, "the crate ended the session by itself".into()),
        };
        let beats = self.seen.beats.load(SeqCst);
        let missed = self.seen.missed.load(SeqCst);
        Ending {
            clean: ended_well && missed == 0,
            error,
            goaway,
            beats,
            missed,
        }
    }
}
