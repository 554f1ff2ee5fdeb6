//! The acceptor's role in the stream protocol.

use std::{collections::HashMap, io, sync::Arc, time::Duration};

use tokio::{
    io::{
        AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, copy_buf,
        split,
    },
    sync::{Mutex, Notify},
    time::{Instant, timeout},
};

use crate::{
    pattern::{Sum, pattern},
    session::{Acceptor, AnyStream, Session},
};

/// Answers the streams that the other end opens, in either role of the session.
pub struct Host {
    pub session: Session,
    notes: Mutex<HashMap<String, String>>,
    noted: Notify,
    paused: Mutex<Option<Instant>>,
    /// Locked while nothing is to be accepted.
    gate: Mutex<()>,
    closed: Notify,
    echo: bool,
}

impl Host {
    pub fn new(session: Session, echo: bool) -> Self {
        Host {
            session,
            notes: Mutex::default(),
            noted: Notify::new(),
            paused: Mutex::default(),
            gate: Mutex::default(),
            closed: Notify::new(),
            echo,
        }
    }

    pub async fn run(self: Arc<Self>, mut acceptor: Acceptor) {
        loop {
            self.wait_for_pause().await;
            let accepted = tokio::select! {
                accepted = acceptor.accept() => accepted,
                _ = self.closed.notified() => None,
            };
            let Some((stream, kind)) = accepted else {
                return;
            };
            self.wait_for_pause().await;
            let host = self.clone();
            tokio::spawn(async move {
                if let Err(error) = host.answer(stream, kind).await {
                    eprintln!("stream: {error}");
                }
            });
        }
    }

    async fn wait_for_pause(&self) {
        let until = *self.paused.lock().await;
        if let Some(until) = until {
            tokio::time::sleep_until(until).await;
        }
        drop(self.gate.lock().await);
    }

    async fn note(&self, key: &str, text: String) {
        self.notes.lock().await.insert(key.into(), text);
        self.noted.notify_waiters();
    }

    /// Waits for a note: it may be asked for before it is written.
    async fn recall(&self, key: &str) -> String {
        loop {
            let noted = self.noted.notified();
            if let Some(text) = self.notes.lock().await.get(key) {
                return text.clone();
            }
            let _ = timeout(Duration::from_millis(50), noted).await;
        }
    }

    async fn answer(&self, stream: AnyStream, kind: u32) -> io::Result<()> {
        let (reader, mut writer) = split(stream);
        let mut reader = BufReader::new(reader);
        if self.echo {
            copy_buf(&mut reader, &mut writer).await?;
            return writer.shutdown().await;
        }
        let mut line = String::new();
        reader.read_line(&mut line).await?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let argument = |i: usize| words.get(i).copied().unwrap_or_default();
        let number = |i: usize| argument(i).parse::<usize>().unwrap_or_default();
        let reply = match argument(0) {
            "echo" => {
                copy_buf(&mut reader, &mut writer).await?;
                String::new()
            }
            "digest" => digest_of(&mut reader).await?.1,
            "source" => {
                let total = number(1);
                let mut sent = 0;
                while sent < total {
                    let chunk = pattern(sent, (total - sent).min(64 << 10));
                    writer.write_all(&chunk).await?;
                    sent += chunk.len();
                }
                String::new()
            }
            "answer-after-eof" => format!("got {}", digest_of(&mut reader).await?.0),
            "eof-first" => {
                writer.shutdown().await?;
                let (length, digest) = digest_of(&mut reader).await?;
                self.note(argument(1), format!("{length} {digest}")).await;
                return Ok(());
            }
            "recall" => self.recall(argument(1)).await,
            "open-back" => self.open_back(number(1)).await,
            "type" => kind.to_string(),
            // There is no call for it. A dropped stream answers later data by RST.
            "reset" => return Ok(()),
            "flood" => {
                let how = flood(&mut writer).await;
                self.note(argument(1), how).await;
                return Ok(());
            }
            "pause" => {
                let until = Instant::now() + Duration::from_millis(number(1) as u64);
                *self.paused.lock().await = Some(until);
                "paused".into()
            }
            "hold" => {
                let _held = self.gate.lock().await;
                writer.write_all(b"held").await?;
                writer.shutdown().await?;
                digest_of(&mut reader).await?;
                return Ok(());
            }
            "goaway" | "close" | "leave" => {
                self.session.close(number(1) as u32).await;
                self.closed.notify_one();
                return Ok(());
            }
            other => return Err(io::Error::other(format!("unknown command {other:?}"))),
        };
        writer.write_all(reply.as_bytes()).await?;
        writer.shutdown().await
    }

    /// Opens `count` streams to the initiator and checks their echoes.
    async fn open_back(&self, count: usize) -> String {
        let mut streams = Vec::new();
        for i in 0..count {
            let payload = pattern(i * 997, 1000 + i * 331);
            streams.push(async move {
                match self.request("echo", &payload).await {
                    Ok(got) if got == payload => Ok(()),
                    Ok(_) => Err(format!("echo {i} differs")),
                    Err(error) => Err(error),
                }
            });
        }
        match together(streams).await {
            Ok(()) => "ok".into(),
            Err(error) => format!("bad: {error}"),
        }
    }

    pub async fn request(&self, line: &str, body: &[u8]) -> Result<Vec<u8>, String> {
        request_on(self.session.open().await?, line, body).await
    }
}

/// Runs futures at once and returns the first error.
pub async fn together<F>(futures: Vec<F>) -> Result<(), String>
where
    F: Future<Output = Result<(), String>>,
{
    let mut running: Vec<_> = futures
        .into_iter()
        .map(|future| Some(Box::pin(future)))
        .collect();
    let mut first = Ok(());
    std::future::poll_fn(|cx| {
        let mut pending = false;
        for slot in &mut running {
            if let Some(future) = slot {
                match future.as_mut().poll(cx) {
                    std::task::Poll::Pending => pending = true,
                    std::task::Poll::Ready(outcome) => {
                        *slot = None;
                        first = std::mem::replace(&mut first, Ok(())).and(outcome);
                    }
                }
            }
        }
        if pending {
            std::task::Poll::Pending
        } else {
            std::task::Poll::Ready(())
        }
    })
    .await;
    first
}

/// Says line and body, half-closes the stream and reads the whole answer.
pub async fn request_on(stream: AnyStream, line: &str, body: &[u8]) -> Result<Vec<u8>, String> {
    let (mut reader, mut writer) = split(stream);
    let say = async {
        writer.write_all(format!("{line}\n").as_bytes()).await?;
        writer.write_all(body).await?;
        writer.shutdown().await
    };
    let mut answer = Vec::new();
    let (said, read) = tokio::join!(say, reader.read_to_end(&mut answer));
    read.map_err(|e| format!("read after {line:?}: {e}"))?;
    said.map_err(|e| format!("write after {line:?}: {}", describe(&e)))?;
    Ok(answer)
}

/// How an end of a stream is noted: `reset CODE` or the crate's words.
pub fn describe(error: &io::Error) -> String {
    match error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<muxado::Error>())
    {
        Some(code) => format!("reset {}", *code as u32),
        None => format!("error {error}"),
    }
}

/// Writes until the other end has enough, and says how that was put.
///
/// In this crate RST does not wake a writer that waits for window, but `flush` sees it.
async fn flood(writer: &mut (impl AsyncWrite + Unpin)) -> String {
    let mut sent = 0;
    loop {
        let chunk = pattern(sent, 4096);
        match timeout(Duration::from_millis(50), writer.write(&chunk)).await {
            Ok(Ok(0)) => return "error end".into(),
            Ok(Ok(n)) => sent += n,
            Ok(Err(error)) => return describe(&error),
            Err(_) => {
                if let Err(error) = writer.flush().await {
                    return describe(&error);
                }
            }
        }
    }
}

async fn digest_of(reader: &mut (impl AsyncRead + Unpin)) -> io::Result<(usize, String)> {
    let mut sum = Sum::default();
    let mut length = 0;
    let mut buffer = vec![0; 64 << 10];
    loop {
        let n = reader.read(&mut buffer).await?;
        if n == 0 {
            return Ok((length, sum.hex()));
        }
        sum.add(&buffer[..n]);
        length += n;
    }
}
