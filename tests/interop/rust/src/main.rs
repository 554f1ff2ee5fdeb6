//! The interoperability peer for muxado's Rust crate: `serve` and `dial`, with the command line,
//! the stream protocol and the scenarios of the Go peers beside it.

mod acceptor;
mod pattern;
mod scenarios;
mod session;

use std::{process::exit, sync::Arc, time::Duration};

use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
};

use acceptor::Host;
use session::{Ending, Session};

/// The choices of the command line.
#[derive(Clone, Debug)]
pub struct Options {
    pub addr: String,
    pub typed: bool,
    pub heartbeat: bool,
    /// Be an echo peer: see docs/specification/vectors.md.
    pub echo: bool,
    pub interval: Duration,
    pub tolerance: Duration,
    pub timeout: Duration,
    /// The scenario and its arguments.
    pub rest: Vec<String>,
}

fn fail(why: impl std::fmt::Display) -> ! {
    println!("FAIL {why}");
    exit(1)
}

/// Reads what Go writes as a duration, as far as it is needed: `250ms` or `3s`.
fn duration(text: &str) -> Duration {
    let parsed = match text.strip_suffix("ms") {
        Some(millis) => millis.parse().map(Duration::from_millis),
        None => text.trim_end_matches('s').parse().map(Duration::from_secs),
    };
    parsed.unwrap_or_else(|_| fail(format!("not a duration: {text}")))
}

fn parse(mut args: impl Iterator<Item = String>) -> Options {
    let mut options = Options {
        addr: "127.0.0.1:0".into(),
        typed: false,
        heartbeat: false,
        echo: false,
        interval: Duration::from_secs(3),
        tolerance: Duration::from_secs(10),
        timeout: Duration::from_secs(60),
        rest: Vec::new(),
    };
    while let Some(arg) = args.next() {
        let mut value = || {
            args.next()
                .unwrap_or_else(|| fail(format!("{arg} needs a value")))
        };
        match arg.as_str() {
            "--typed" => options.typed = true,
            "--heartbeat" => options.heartbeat = true,
            "--echo" => options.echo = true,
            "--addr" => options.addr = value(),
            "--interval" => options.interval = duration(&value()),
            "--tolerance" => options.tolerance = duration(&value()),
            "--timeout" => options.timeout = duration(&value()),
            _ => {
                options.rest.push(arg);
                options.rest.extend(args.by_ref());
            }
        }
    }
    options
}

async fn serve(options: Options) {
    let listener = match TcpListener::bind(&options.addr).await {
        Ok(listener) => listener,
        Err(error) => fail(error),
    };
    println!("LISTENING {}", listener.local_addr().expect("bound").port());
    tokio::spawn(async {
        // The driver holds the other end of this pipe: no peer outlives its driver.
        let mut rest = Vec::new();
        let _ = tokio::io::stdin().read_to_end(&mut rest).await;
        exit(0);
    });
    loop {
        let (conn, _) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => fail(error),
        };
        let options = options.clone();
        tokio::spawn(async move {
            match Session::start(conn, false, &options).await {
                Ok((session, acceptor)) => {
                    let host = Arc::new(Host::new(session, options.echo));
                    host.clone().run(acceptor).await;
                    println!("SESSION-END {}", host.session.ending().json());
                }
                Err(error) => println!("SESSION-END {}", Ending::failed(&error).json()),
            }
        });
    }
}

async fn dial(options: Options) {
    if options.rest.is_empty() && !options.echo {
        fail("no scenario");
    }
    let name = options.rest.first().map_or("echo", String::as_str);
    let arguments = options.rest.get(1..).unwrap_or_default();
    let work = async {
        let conn = TcpStream::connect(&options.addr)
            .await
            .map_err(|e| e.to_string())?;
        let (session, acceptor) = Session::start(conn, true, &options).await?;
        let host = Arc::new(Host::new(session, options.echo));
        let accepting = tokio::spawn(host.clone().run(acceptor));
        if options.echo {
            // To the end of the session: whoever checks it ends it.
            let _ = accepting.await;
            return Ok("{}".into());
        }
        let result = scenarios::run(&host, name, arguments).await?;
        host.session.close(0).await;
        drop(host);
        accepting.abort();
        Ok::<String, String>(result)
    };
    match tokio::time::timeout(options.timeout, work).await {
        Ok(Ok(result)) => println!("OK {result}"),
        Ok(Err(why)) => fail(format!("{name}: {why}")),
        Err(_) => fail(format!("{name}: timed out")),
    }
}

#[tokio::main]
async fn main() {
    let mut args = std::env::args().skip(1);
    let role = args.next();
    let options = parse(args);
    match role.as_deref() {
        Some("serve") => serve(options).await,
        Some("dial") => dial(options).await,
        _ => fail("usage: peer serve|dial [options] [SCENARIO [arguments]]"),
    }
    exit(0);
}
