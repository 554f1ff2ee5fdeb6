//! The Rust side of the benchmarks: the same exchange and the same works as
//! benchmarks/_common.py, for the muxado crate.
//!
//!     bench-rust server [--cert PEM]
//!     bench-rust client WORK --port N [--ca PEM] [--at-once N] [--streams N] ...

use std::collections::HashMap;
use std::future::Future;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use muxado::{Accept, MuxadoOpen, MuxadoSession, OpenClose, Session, SessionBuilder, Stream};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

type Fault = Box<dyn std::error::Error + Send + Sync>;
type Answer<T> = Result<T, Fault>;

const REQUEST: usize = 64;
const CHUNK: usize = 64 << 10;
const RECEIVE: usize = 256 << 10;
const SMALL: usize = 512;
const OPEN_AT_ONCE: usize = 50;
/// The crate's own 512 would refuse 1,000 and 10,000 streams at once.
const STREAM_LIMIT: usize = 1 << 15;

fn cpu_seconds() -> f64 {
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &mut usage) };
    let seconds = |t: libc::timeval| t.tv_sec as f64 + t.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

fn resident_bytes() -> i64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text.split(' ').nth(1).and_then(|n| n.parse::<i64>().ok());
    pages.unwrap_or(0) * unsafe { libc::sysconf(libc::_SC_PAGESIZE) }
}

fn session<S>(transport: S, client: bool) -> MuxadoSession
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let builder = SessionBuilder::new(transport).stream_limit(STREAM_LIMIT);
    if client {
        builder.client()
    } else {
        builder.server()
    }
    .start()
}

// ---------------------------------------------------------------- server

async fn answer(mut stream: Stream) -> Answer<()> {
    let mut first = vec![0; SMALL];
    let n = stream.read(&mut first).await?;
    match first[0] {
        _ if n == 0 => {}
        b'r' => {
            while stream.read(&mut first).await? > 0 {}
            stream.write_all(&[0; REQUEST]).await?;
        }
        b'b' => {
            let (mut total, mut buffer) = (n, vec![0; RECEIVE]);
            loop {
                match stream.read(&mut buffer).await? {
                    0 => break,
                    n => total += n,
                }
            }
            stream.write_all(total.to_string().as_bytes()).await?;
        }
        b'i' => {
            stream.write_all(b"i").await?;
            while stream.read(&mut first).await? > 0 {}
        }
        _ => {
            let report = json!({"cpu": cpu_seconds(), "rss": resident_bytes()});
            stream.write_all(report.to_string().as_bytes()).await?;
        }
    }
    stream.shutdown().await?;
    Ok(())
}

async fn serve_session(mut session: MuxadoSession) {
    while let Some(stream) = session.accept().await {
        tokio::spawn(answer(stream));
    }
}

async fn serve(options: &Options) -> Answer<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", json!({"port": listener.local_addr()?.port()}));
    io::stdout().flush()?;
    std::thread::spawn(|| {
        // The harness ends a server by closing its standard input.
        let _ = io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    let tls = match options.text("cert") {
        None => None,
        Some(path) => {
            let chain = CertificateDer::pem_file_iter(path)?.collect::<Result<Vec<_>, _>>()?;
            let key = PrivateKeyDer::from_pem_file(path)?;
            let config = ServerConfig::builder()
                .with_no_client_auth()
                .with_single_cert(chain, key)?;
            Some(TlsAcceptor::from(Arc::new(config)))
        }
    };
    loop {
        let (conn, _) = listener.accept().await?;
        conn.set_nodelay(true)?;
        match &tls {
            None => tokio::spawn(serve_session(session(conn, false))),
            Some(tls) => tokio::spawn(serve_session(session(tls.accept(conn).await?, false))),
        };
    }
}

// ---------------------------------------------------------------- client

async fn exchange(session: &mut MuxadoOpen, payload: &[u8]) -> Answer<Vec<u8>> {
    let mut stream = session.open().await?;
    stream.write_all(payload).await?;
    stream.shutdown().await?;
    let mut got = Vec::with_capacity(256);
    stream.read_to_end(&mut got).await?;
    Ok(got)
}

async fn server_usage(session: &mut MuxadoOpen) -> Answer<Value> {
    Ok(serde_json::from_slice(&exchange(session, b"u").await?)?)
}

/// Sends a chunk, and chunks while `more()` says so, and returns what the server counted.
async fn bulk(mut session: MuxadoOpen, more: impl Fn() -> bool) -> Answer<i64> {
    let mut stream = session.open().await?;
    let chunk = [&b"b"[..], &[0; CHUNK - 1]].concat();
    stream.write_all(&chunk).await?;
    while more() {
        stream.write_all(&chunk).await?;
    }
    stream.shutdown().await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    Ok(text.parse()?)
}

async fn together<F, T>(n: usize, job: impl Fn() -> F) -> Answer<Vec<T>>
where
    F: Future<Output = Answer<T>> + Send + 'static,
    T: Send + 'static,
{
    let jobs: Vec<_> = (0..n).map(|_| tokio::spawn(job())).collect();
    let mut results = Vec::with_capacity(n);
    for job in jobs {
        results.push(job.await??);
    }
    Ok(results)
}

async fn hold(session: &MuxadoOpen, n: usize) -> Answer<Vec<Vec<Stream>>> {
    let left = Arc::new(AtomicI64::new(n as i64));
    together(n.min(OPEN_AT_ONCE), || {
        let (mut session, left) = (session.clone(), left.clone());
        async move {
            let mut held = Vec::new();
            while left.fetch_sub(1, Relaxed) > 0 {
                let mut stream = session.open().await?;
                stream.write_all(b"i").await?;
                stream.read_exact(&mut [0]).await?;
                held.push(stream);
            }
            Ok(held)
        }
    })
    .await
}

/// Keeps `n` workers busy, first to warm up, then measured.
async fn requests(session: &mut MuxadoOpen, n: usize, seconds: f64) -> Answer<Value> {
    let run = |session: MuxadoOpen, seconds: f64| async move {
        let stop = Instant::now() + Duration::from_secs_f64(seconds);
        together(n, || {
            let mut session = session.clone();
            async move {
                let payload = [&b"r"[..], &[0; REQUEST - 1]].concat();
                let (mut took, mut now) = (Vec::new(), Instant::now());
                while now < stop {
                    let got = exchange(&mut session, &payload).await?.len();
                    if got != REQUEST {
                        return Err(format!("an answer of {got} bytes").into());
                    }
                    let after = Instant::now();
                    took.push((after - now).as_secs_f64());
                    now = after;
                }
                Ok(took)
            }
        })
        .await
    };
    run(session.clone(), seconds / 4.0).await?;
    let there = server_usage(session).await?;
    let (here, start) = (cpu_seconds(), Instant::now());
    let mut took = run(session.clone(), seconds).await?.concat();
    let (elapsed, spent) = (start.elapsed().as_secs_f64(), cpu_seconds() - here);
    let after = server_usage(session).await?;
    if took.is_empty() {
        return Err("no request ended in time".into());
    }
    took.sort_by(f64::total_cmp);
    Ok(json!({
        "requests": took.len(), "seconds": elapsed, "at_once": n,
        "p50": took[took.len() / 2], "p99": took[took.len() * 99 / 100],
        "client_cpu": spent, "server_cpu": number(&after, "cpu") - number(&there, "cpu"),
    }))
}

fn number(report: &Value, name: &str) -> f64 {
    report[name].as_f64().unwrap_or(0.0)
}

async fn run(session: &mut MuxadoOpen, work: &str, options: &Options) -> Answer<Value> {
    let (at_once, seconds) = (
        options.number("at-once", 64.0) as usize,
        options.number("seconds", 2.0),
    );
    match work {
        "a" => {
            let idle = options.number("idle", 0.0) as usize;
            if idle == 0 {
                return requests(session, at_once, seconds).await;
            }
            // What only the first streams cost is not a stream's memory.
            let _first = hold(session, if idle > 1 { 20 } else { 0 }).await?;
            let (there, here) = (server_usage(session).await?, resident_bytes());
            let _held = hold(session, idle).await?;
            let here = (resident_bytes() - here) as f64;
            let there = number(&server_usage(session).await?, "rss") - number(&there, "rss");
            let mut result = requests(session, at_once, seconds).await?;
            result["client_memory"] = json!(here / idle as f64);
            result["server_memory"] = json!(there / idle as f64);
            Ok(result)
        }
        "b" => {
            let there = server_usage(session).await?;
            let (here, start) = (cpu_seconds(), Instant::now());
            let stop = start + Duration::from_secs_f64(seconds);
            let budget = Arc::new(AtomicI64::new(
                options.number("bytes", (1u64 << 30) as f64) as i64
            ));
            let streams = options.number("streams", 1.0) as usize;
            let counts = together(streams, || {
                let budget = budget.clone();
                let chunk = CHUNK as i64;
                bulk(session.clone(), move || {
                    Instant::now() < stop && budget.fetch_sub(chunk, Relaxed) >= chunk
                })
            })
            .await?;
            let (elapsed, spent) = (start.elapsed().as_secs_f64(), cpu_seconds() - here);
            Ok(json!({
                "bytes": counts.iter().sum::<i64>(), "seconds": elapsed, "streams": streams,
                "client_cpu": spent,
                "server_cpu": number(&server_usage(session).await?, "cpu") - number(&there, "cpu"),
            }))
        }
        "f" => {
            let (running, start) = (Arc::new(AtomicBool::new(true)), Instant::now());
            let go_on = running.clone();
            let beside = tokio::spawn(bulk(session.clone(), move || go_on.load(Relaxed)));
            let mut result = requests(session, at_once, seconds).await?;
            running.store(false, Relaxed);
            result["beside_bytes"] = json!(beside.await??);
            result["beside_seconds"] = json!(start.elapsed().as_secs_f64());
            Ok(result)
        }
        _ => Err(format!("no such work: {work:?}").into()),
    }
}

async fn client(work: &str, options: &Options) -> Answer<()> {
    let conn = TcpStream::connect(("127.0.0.1", options.number("port", 0.0) as u16)).await?;
    conn.set_nodelay(true)?;
    let session = match options.text("ca") {
        None => session(conn, true),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_file(path)?)?;
            let config = ClientConfig::builder()
                .with_root_certificates(roots)
                .with_no_client_auth();
            let name = ServerName::try_from("127.0.0.1")?;
            let tls = TlsConnector::from(Arc::new(config));
            session(tls.connect(name, conn).await?, true)
        }
    };
    let (mut open, _accept) = session.split();
    println!("{}", run(&mut open, work, options).await?);
    Ok(())
}

/// `--name value` pairs, as the harness passes them.
struct Options(HashMap<String, String>);

impl Options {
    fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    fn number(&self, name: &str, default: f64) -> f64 {
        self.text(name)
            .and_then(|n| n.parse().ok())
            .unwrap_or(default)
    }
}

#[tokio::main]
async fn main() -> Answer<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let pairs = args.windows(2).filter_map(|pair| {
        let name = pair[0].strip_prefix("--")?;
        Some((name.to_owned(), pair[1].clone()))
    });
    let options = Options(pairs.collect());
    match args.first().map(String::as_str) {
        Some("server") => serve(&options).await,
        Some("client") if args.len() > 1 => client(&args[1], &options).await,
        _ => Err("usage: server|client WORK [options]".into()),
    }
}
