//! The dialler's scenarios.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::{Barrier, Semaphore},
    time::sleep,
};

use crate::{
    acceptor::{Host, describe, request_on, together},
    pattern::{digest, pattern},
    session::AnyStream,
};

type Outcome = Result<String, String>;

pub async fn run(host: &Arc<Host>, name: &str, arguments: &[String]) -> Outcome {
    let number = |i: usize, otherwise: usize| -> usize {
        arguments
            .get(i)
            .and_then(|text| text.parse().ok())
            .unwrap_or(otherwise)
    };
    match name {
        "echo" => echo(host, number(0, 500)).await,
        "upload" => upload(host, number(0, 20 << 20)).await,
        "download" => download(host, number(0, 20 << 20)).await,
        "halfclose" => half_close(host).await,
        "openback" => open_back(host, number(0, 20)).await,
        "idle" => idle(host, number(0, 14_000)).await,
        "close" => close(host).await,
        "peer-close" => peer_close(host).await,
        "overrun" => overrun(host, number(0, 300), number(1, 1000)).await,
        "goaway-running" => goaway_running(host, number(0, 10), number(1, 0)).await,
        "self-goaway" => self_goaway(host, number(0, 10)).await,
        "reset" => reset(host, arguments).await,
        "leave" => leave(host, number(0, 2) as u32).await,
        "await" => wait(host).await,
        "typed" => typed(host, number(0, 0x1234_5678) as u32).await,
        _ => Err("no such scenario for this crate".into()),
    }
}

fn words(error: std::io::Error) -> String {
    describe(&error)
}

async fn must_echo(host: &Host, text: &str) -> Result<(), String> {
    let answer = host.request("echo", text.as_bytes()).await?;
    if answer != text.as_bytes() {
        return Err(format!("echo of {text:?} is {answer:?}"));
    }
    Ok(())
}

/// An echo in two halves: in between, the stream is certainly alive at both ends.
struct TwoHalves {
    stream: AnyStream,
    payload: Vec<u8>,
}

impl TwoHalves {
    async fn start(host: &Host, i: usize) -> Result<Self, String> {
        let mut payload = format!("stream {i} ").into_bytes();
        payload.extend(pattern(i * 37, 200 + i * 53 % 5000));
        let mut stream = host.session.open().await?;
        let half = payload.len() / 2;
        stream.write_all(b"echo\n").await.map_err(words)?;
        stream.write_all(&payload[..half]).await.map_err(words)?;
        let mut got = vec![0; half];
        stream.read_exact(&mut got).await.map_err(words)?;
        if got != payload[..half] {
            return Err(format!("first half of echo {i} differs"));
        }
        Ok(TwoHalves { stream, payload })
    }

    async fn finish(mut self) -> Result<(), String> {
        let half = self.payload.len() / 2;
        self.stream
            .write_all(&self.payload[half..])
            .await
            .map_err(words)?;
        self.stream.shutdown().await.map_err(words)?;
        let mut got = Vec::new();
        self.stream.read_to_end(&mut got).await.map_err(words)?;
        if got != self.payload[half..] {
            return Err("second half of an echo differs".into());
        }
        Ok(())
    }
}

/// Less than the smallest accept backlog of all peers (64): a burst past it may be refused.
const OPENING_AT_ONCE: usize = 48;

/// `count` streams that are all open before the first one ends.
async fn echo(host: &Arc<Host>, count: usize) -> Outcome {
    let (barrier, opening) = (Barrier::new(count), Semaphore::new(OPENING_AT_ONCE));
    let streams = (0..count).map(|i| {
        let (barrier, opening) = (&barrier, &opening);
        async move {
            let permit = opening.acquire().await;
            let started = TwoHalves::start(host, i).await;
            drop(permit);
            barrier.wait().await;
            started?.finish().await
        }
    });
    together(streams.collect()).await?;
    Ok(format!(r#"{{"streams":{count}}}"#))
}

async fn upload(host: &Host, total: usize) -> Outcome {
    let payload = pattern(0, total);
    let answer = host.request("digest", &payload).await?;
    if answer != digest(&payload).into_bytes() {
        return Err(format!("digest {:?}", String::from_utf8_lossy(&answer)));
    }
    Ok(format!(r#"{{"bytes":{total}}}"#))
}

async fn download(host: &Host, total: usize) -> Outcome {
    let got = host.request(&format!("source {total}"), b"").await?;
    if got != pattern(0, total) {
        return Err(format!("{} bytes that differ from the pattern", got.len()));
    }
    Ok(format!(r#"{{"bytes":{total}}}"#))
}

/// Either end ends its direction first, and the other one still works.
async fn half_close(host: &Host) -> Outcome {
    let body = pattern(11, 200_000);
    let answer = host.request("answer-after-eof", &body).await?;
    if answer != b"got 200000" {
        return Err(format!(
            "answer-after-eof: {:?}",
            String::from_utf8_lossy(&answer)
        ));
    }
    let mut stream = host.session.open().await?;
    stream.write_all(b"eof-first half\n").await.map_err(words)?;
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.map_err(words)?;
    if !rest.is_empty() {
        return Err(format!("eof-first: read {} bytes", rest.len()));
    }
    stream.write_all(&body).await.map_err(words)?;
    stream.shutdown().await.map_err(words)?;
    let noted = host.request("recall half", b"").await?;
    if noted != format!("200000 {}", digest(&body)).into_bytes() {
        return Err(format!("eof-first: {:?}", String::from_utf8_lossy(&noted)));
    }
    Ok("{}".into())
}

async fn open_back(host: &Host, count: usize) -> Outcome {
    let answer = host.request(&format!("open-back {count}"), b"").await?;
    if answer != b"ok" {
        return Err(String::from_utf8_lossy(&answer).into_owned());
    }
    Ok(format!(r#"{{"streams":{count}}}"#))
}

async fn idle(host: &Host, millis: usize) -> Outcome {
    must_echo(host, "before").await?;
    sleep(Duration::from_millis(millis as u64)).await;
    must_echo(host, "after").await?;
    let ending = host.session.ending();
    Ok(format!(
        r#"{{"beats":{},"missed":{}}}"#,
        ending.beats, ending.missed
    ))
}

async fn close(host: &Host) -> Outcome {
    leave(host, 0).await
}

/// Ends the session with a code; what the other end made of it is in its own words.
async fn leave(host: &Host, code: u32) -> Outcome {
    must_echo(host, "hello").await?;
    host.session.close(code).await;
    Ok("{}".into())
}

/// The other end does something of its own, and notes "done" with what came of it.
async fn wait(host: &Host) -> Outcome {
    let noted = host.request("recall done", b"").await?;
    let noted = String::from_utf8_lossy(&noted);
    Ok(format!(r#"{{"noted":{noted:?}}}"#))
}

/// The other end closes, and for us that is a clean end.
async fn peer_close(host: &Host) -> Outcome {
    must_echo(host, "hello").await?;
    // The answer may be an end or an error: the session goes away under the stream.
    let _ = host.request("close", b"").await;
    for _ in 0..200 {
        if host.session.ended() {
            break;
        }
        sleep(Duration::from_millis(20)).await;
    }
    let ending = host.session.ending();
    if !ending.clean {
        return Err(format!("not a clean end: {}", ending.json()));
    }
    Ok(format!(r#"{{"ending":{}}}"#, ending.json()))
}

/// `count` streams while the other end accepts none for `pause` ms.
async fn overrun(host: &Host, count: usize, pause: usize) -> Outcome {
    let answer = host.request(&format!("pause {pause}"), b"").await?;
    if answer != b"paused" {
        return Err(format!("pause: {answer:?}"));
    }
    let served = std::sync::atomic::AtomicUsize::new(0);
    let refused = std::sync::Mutex::new(BTreeMap::<String, usize>::new());
    let streams = (0..count).map(|i| {
        let (served, refused) = (&served, &refused);
        async move {
            let text = format!("overrun {i}");
            let stream = host.session.open().await?;
            // A stream that was reset never wakes its reader in this crate.
            let asked = request_on(stream, "echo", text.as_bytes());
            let patience = Duration::from_millis(pause as u64 * 3);
            match tokio::time::timeout(patience, asked).await {
                Ok(Ok(answer)) if answer == text.as_bytes() => {
                    served.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                }
                Ok(Ok(answer)) if !answer.is_empty() => {
                    return Err(format!("stream {i}: {answer:?}"));
                }
                other => {
                    let why = match other {
                        Err(_) => "silent".into(),
                        Ok(Ok(_)) => "empty".into(),
                        Ok(Err(why)) => why.rsplit(' ').next().unwrap_or_default().to_string(),
                    };
                    *refused
                        .lock()
                        .expect("never poisoned")
                        .entry(why)
                        .or_default() += 1;
                }
            }
            Ok(())
        }
    });
    together(streams.collect()).await?;
    sleep(Duration::from_millis(pause as u64)).await;
    must_echo(host, "alive")
        .await
        .map_err(|e| format!("the session did not survive: {e}"))?;
    let refused = refused.into_inner().expect("never poisoned");
    let refused: Vec<_> = refused
        .iter()
        .map(|(why, n)| format!("{why:?}:{n}"))
        .collect();
    Ok(format!(
        r#"{{"served":{},"refused":{{{}}}}}"#,
        served.into_inner(),
        refused.join(",")
    ))
}

/// The other end sends GOAWAY while streams run: this crate ends the session there, and them.
async fn goaway_running(host: &Host, count: usize, code: usize) -> Outcome {
    let mut running = Vec::new();
    for i in 0..count {
        running.push(TwoHalves::start(host, i).await?);
    }
    let _ = host.request(&format!("goaway {code}"), b"").await;
    let mut survived = 0;
    for stream in running {
        survived += usize::from(stream.finish().await.is_ok());
    }
    let refused = host.session.open().await.is_err();
    let ending = host.session.ending().json();
    Ok(format!(
        r#"{{"survived":{survived},"refused":{refused},"ending":{ending}}}"#
    ))
}

/// Our own GOAWAY, which ends the session in this crate, whatever runs.
async fn self_goaway(host: &Host, count: usize) -> Outcome {
    let mut running = Vec::new();
    for i in 0..count {
        running.push(TwoHalves::start(host, i).await?);
    }
    host.session.close(0).await;
    let refused = host.session.open().await.is_err();
    Ok(format!(r#"{{"streams":{count},"refused":{refused}}}"#))
}

/// Asks for an RST with a code and describes what came under our writes.
async fn reset_by_the_other_end(host: &Host, code: &str) -> Outcome {
    let mut stream = host.session.open().await?;
    let line = format!("reset {code}\n");
    stream.write_all(line.as_bytes()).await.map_err(words)?;
    for _ in 0..2000 {
        if let Err(error) = stream.write_all(b"more").await {
            return Ok(describe(&error));
        }
        sleep(Duration::from_millis(5)).await;
    }
    Err("no RST came for data on a stream that was reset".into())
}

/// Ends a stream under the other end's writes, which describes what came. There is no call for a
/// code: a dropped stream answers later data by RST.
async fn reset_here(host: &Host, key: &str) -> Outcome {
    let mut flood = host.session.open().await?;
    let line = format!("flood {key}\n");
    flood.write_all(line.as_bytes()).await.map_err(words)?;
    flood.read_exact(&mut [0; 10_000]).await.map_err(words)?;
    drop(flood);
    let sent = host.request(&format!("recall {key}"), b"").await?;
    Ok(String::from_utf8_lossy(&sent).into_owned())
}

/// For each code the other end resets a stream, and then we do.
async fn reset(host: &Host, codes: &[String]) -> Outcome {
    let (mut received, mut sent) = (Vec::new(), Vec::new());
    for code in codes {
        received.push(reset_by_the_other_end(host, code).await?);
        sent.push(reset_here(host, code).await?);
    }
    must_echo(host, "alive").await?;
    Ok(format!(r#"{{"received":{received:?},"sent":{sent:?}}}"#))
}

async fn typed(host: &Host, kind: u32) -> Outcome {
    let stream = host.session.open_typed(kind).await?;
    let answer = request_on(stream, "type", b"").await?;
    if answer != kind.to_string().into_bytes() {
        return Err(format!("type {:?}", String::from_utf8_lossy(&answer)));
    }
    Ok(format!(r#"{{"type":{kind}}}"#))
}
