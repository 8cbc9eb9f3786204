//! `pagebert serve`: a preview of a site on this machine.
//!
//! Owns the address and the headers: those of a good host, so that the page is seen under the
//! strictest rules it will meet, or those of a bucket, so that it is seen under the poorest. It is
//! no public server, and must not know what is in the files.

use std::future::Future;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use axum::Router;
use axum::extract::Request;
use axum::http::header::{CACHE_CONTROL, HeaderName, HeaderValue};
use axum::middleware::{self, Next};
use axum::response::Response;
use tower_http::services::ServeDir;

use crate::UsageError;
use crate::cli::ServeArgs;
use crate::progress::Console;

/// Sent with every answer, to workers too: theirs is the policy that counts for the engine.
const HEADERS: [(&str, &str); 7] = [
    (
        "content-security-policy",
        "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'self'; object-src 'none'",
    ),
    // These two make the page cross-origin isolated, which threads need.
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-embedder-policy", "require-corp"),
    ("cross-origin-resource-policy", "same-origin"),
    ("permissions-policy", "camera=(), geolocation=(), microphone=()"),
    ("referrer-policy", "no-referrer"),
    ("x-content-type-options", "nosniff"),
];

/// The host to be like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manners {
    /// One that sends every header that helps, and compressed twins where they are.
    Good,
    /// One that sends files.
    Bucket,
}

/// How long open downloads may go on after Ctrl-C.
const GRACE: Duration = Duration::from_secs(2);

/// `pagebert serve`: until Ctrl-C.
pub fn run(args: &ServeArgs, console: &Console) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the server can't start")?;
    runtime.block_on(async {
        let manners = if args.as_bucket { Manners::Bucket } else { Manners::Good };
        let server = Server::bind(&args.site, &args.host, args.port, manners).await?;
        let stop = stop_signals().context("Ctrl-C can't be listened for")?;
        let mut stdout = io::stdout().lock();
        // Who reads the address may have gone; the server is useful all the same.
        let _ = writeln!(stdout, "{}", server.url()).and_then(|()| stdout.flush());
        drop(stdout);
        if !server.address.ip().is_loopback() {
            console.warn(format!(
                "everyone who reaches {} can open the site; it has no encryption and no login",
                server.address
            ));
        }
        console.note(format!("Serving {}. Ctrl-C stops.", args.site.display()));
        server.run(stop).await
    })
}

/// A site on an address, not yet answering.
#[derive(Debug)]
pub struct Server {
    listener: tokio::net::TcpListener,
    address: SocketAddr,
    app: Router,
}

impl Server {
    /// Takes the address; port 0 takes a free one.
    pub async fn bind(site: &Path, host: &str, port: u16, manners: Manners) -> Result<Server> {
        check_site(site)?;
        let wanted = address_of(host, port)?;
        let listener =
            tokio::net::TcpListener::bind(wanted).await.map_err(|error| explain(error, wanted))?;
        let address = listener.local_addr().context("the address can't be told")?;
        let files = ServeDir::new(site);
        let app = match manners {
            Manners::Good => Router::new()
                // Twins made by a compressor are preferred where they exist.
                .fallback_service(files.precompressed_br().precompressed_gzip())
                .layer(middleware::from_fn(with_headers)),
            Manners::Bucket => Router::new().fallback_service(files),
        };
        Ok(Server { listener, address, app })
    }

    /// Where a browser on this machine finds it.
    pub fn url(&self) -> String {
        let ip = match self.address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => "127.0.0.1".to_string(),
            IpAddr::V6(ip) if ip.is_unspecified() => "[::1]".to_string(),
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        };
        format!("http://{ip}:{}/", self.address.port())
    }

    /// Answers until `stop`, then lets open downloads finish for a moment.
    pub async fn run(self, stop: impl Future<Output = ()> + Send + 'static) -> Result<()> {
        let (stopping, mut stopped) = tokio::sync::watch::channel(false);
        let stop = async move {
            stop.await;
            let _ = stopping.send(true);
        };
        let server = axum::serve(self.listener, self.app).with_graceful_shutdown(stop);
        let deadline = async move {
            if stopped.wait_for(|&stopping| stopping).await.is_err() {
                // The server ended by itself.
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(GRACE).await;
        };
        tokio::select! {
            result = server => result.context("the server failed"),
            () = deadline => Ok(()),
        }
    }
}

fn check_site(site: &Path) -> Result<(), UsageError> {
    let shown = site.display();
    if site.join("index.html").is_file() {
        return Ok(());
    }
    Err(UsageError(if !site.is_dir() {
        format!("{shown}: there is no such folder. Make a site with pagebert site")
    } else if site.join("manifest.json").is_file() {
        format!("{shown} is a bundle: make a site of it with pagebert site {shown} --out SITE")
    } else {
        format!("{shown} has no index.html. Give a folder that pagebert site wrote")
    }))
}

fn address_of(host: &str, port: u16) -> Result<SocketAddr> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let found = (bare, port).to_socket_addrs().map_err(|error| {
        UsageError(format!("--host {host} is no address of this machine: {error}. Try 127.0.0.1"))
    })?;
    // `localhost` may mean ::1 first, where other programs then don't look.
    let mut found: Vec<SocketAddr> = found.collect();
    found.sort_by_key(SocketAddr::is_ipv6);
    Ok(*found.first().ok_or_else(|| UsageError(format!("--host {host} is no address")))?)
}

fn explain(error: io::Error, wanted: SocketAddr) -> anyhow::Error {
    let (ip, port) = (wanted.ip(), wanted.port());
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            let free = (port.saturating_add(1)..=port.saturating_add(100))
                .find(|&port| std::net::TcpListener::bind((ip, port)).is_ok());
            let hint = match free {
                Some(free) => format!("--port {free} is free"),
                None => "--port 0 picks a free one".to_string(),
            };
            anyhow!("port {port} on {ip} is taken by another program: {hint}")
        }
        io::ErrorKind::PermissionDenied => {
            anyhow!("port {port} on {ip} is reserved for the system: take one above 1023")
        }
        io::ErrorKind::AddrNotAvailable => {
            anyhow!(UsageError(format!("--host {ip} is no address of this machine. Try 127.0.0.1")))
        }
        _ => anyhow!(error).context(format!("port {port} on {ip} can't be opened")),
    }
}

async fn with_headers(request: Request, next: Next) -> Response {
    let immutable = has_hash(request.uri().path());
    let mut response = next.run(request).await;
    let fine = response.status().is_success() || response.status().as_u16() == 304;
    let cache = if immutable && fine { "public, max-age=31536000, immutable" } else { "no-cache" };
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(cache));
    for (name, value) in HEADERS {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    response
}

/// Whether a file's name carries the hash of its content: `model-0123456789abcdef.safetensors`.
fn has_hash(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    let stem = name.split('.').next().unwrap_or_default();
    stem.rsplit_once('-').is_some_and(|(_, hash)| {
        hash.len() >= 8 && hash.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
    })
}

/// Completes at Ctrl-C or the polite signal of a process manager. They are listened for from this
/// call on, not from the first poll: who has read the address may stop the server at once.
#[cfg(unix)]
fn stop_signals() -> io::Result<impl Future<Output = ()> + Send + 'static> {
    use tokio::signal::unix::{SignalKind, signal};

    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// Completes at Ctrl-C.
#[cfg(windows)]
fn stop_signals() -> io::Result<impl Future<Output = ()> + Send + 'static> {
    let mut interrupt = tokio::signal::windows::ctrl_c()?;
    Ok(async move {
        interrupt.recv().await;
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_in_names_are_seen() {
        for path in
            ["/model/model-0123456789abcdef.safetensors", "/wasm/relaxed-threads-01234567.wasm"]
        {
            assert!(has_hash(path), "{path}");
        }
        for path in [
            "/",
            "/index.html",
            "/model/manifest.json",
            "/wasm/simd.js",
            "/a-0123456.js",
            "/well-deserved.js",
        ] {
            assert!(!has_hash(path), "{path}");
        }
    }

    #[test]
    fn every_header_is_valid() {
        for (name, value) in HEADERS {
            assert_eq!(HeaderName::from_static(name).as_str(), name);
            assert_eq!(HeaderValue::from_static(value), value);
        }
    }
}
