//! A small stand-in for the Hugging Face Hub: the requests that hf-hub makes, the headers it needs,
//! and faults on demand.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::response::Response;
use sha2::{Digest, Sha256};

pub const COMMIT: &str = "1111111111111111111111111111111111111111";
pub const OTHER_COMMIT: &str = "2222222222222222222222222222222222222222";
pub const WEIGHTS: &[u8] = b"pretend these are tensors";

/// What goes wrong with the bytes of the weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The connection closes early.
    Truncated,
    /// A page with an error status stands in for the file.
    ErrorPage,
    /// The right length, and wrong bytes.
    OtherBytes,
}

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: String,
    pub path: String,
    pub token: Option<String>,
}

#[derive(Default)]
struct Shared {
    requests: Mutex<Vec<Seen>>,
    fault: Mutex<Option<Fault>>,
}

/// A running server; stops when dropped.
pub struct FakeHub {
    url: String,
    shared: Arc<Shared>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl FakeHub {
    pub fn start() -> FakeHub {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Shared::default());
        let app = Router::new().fallback(answer).with_state(shared.clone());
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                tokio::select! {
                    result = async { axum::serve(listener, app).await } => result.unwrap(),
                    _ = stopped => {}
                }
            });
        });
        FakeHub { url, shared, stop: Some(stop), thread: Some(thread) }
    }

    pub fn url(&self) -> String {
        self.url.clone()
    }

    pub fn requests(&self) -> Vec<Seen> {
        self.shared.requests.lock().unwrap().clone()
    }

    pub fn forget_requests(&self) {
        self.shared.requests.lock().unwrap().clear();
    }

    pub fn fault(&self, fault: Option<Fault>) {
        *self.shared.fault.lock().unwrap() = fault;
    }
}

impl Drop for FakeHub {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The files of a model at a commit.
fn file(model: &str, commit: &str, name: &str) -> Option<&'static [u8]> {
    let content: &[u8] = match (model, commit, name) {
        ("org/empty", ..) => return None,
        (_, OTHER_COMMIT, "config.json") => br#"{"hidden_size": 8}"#,
        (_, OTHER_COMMIT, "vocab.txt") => b"[PAD]\n[UNK]\n",
        (_, OTHER_COMMIT, "tokenizer_config.json") => br#"{"do_lower_case": true}"#,
        (_, COMMIT, "config.json") => br#"{"hidden_size": 4}"#,
        ("org/mute", _, "tokenizer.json") => return None,
        (_, COMMIT, "tokenizer.json") => br#"{"model": {}}"#,
        ("org/pickled", _, "pytorch_model.bin") => b"pickle",
        ("org/pickled", _, "model.safetensors") => return None,
        (_, _, "model.safetensors") => WEIGHTS,
        _ => return None,
    };
    Some(content)
}

const MODELS: [&str; 6] =
    ["org/tiny", "org/empty", "org/pickled", "org/mute", "org/private", "org/gated"];

fn commit_of(revision: &str) -> Option<&'static str> {
    match revision {
        "main" | COMMIT => Some(COMMIT),
        "v2" | "refs%2Fpr%2F1" | OTHER_COMMIT => Some(OTHER_COMMIT),
        _ => None,
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let path = request.uri().path().trim_start_matches('/').to_string();
    let token = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "))
        .map(str::to_string);
    let seen =
        Seen { method: request.method().to_string(), path: path.clone(), token: token.clone() };
    shared.requests.lock().unwrap().push(seen);

    let parts: Vec<&str> = path.split('/').collect();
    match parts.as_slice() {
        ["api", "models", owner, name] => known(&format!("{owner}/{name}")),
        ["api", "models", owner, name, "revision", revision] => {
            match (commit_of(revision), known(&format!("{owner}/{name}"))) {
                (None, _) => status(StatusCode::NOT_FOUND),
                (_, response) => response,
            }
        }
        [owner, name, "resolve", revision, file @ ..] => {
            let model = format!("{owner}/{name}");
            match model.as_str() {
                "org/private" if token.as_deref() != Some("hf_right") => {
                    return status(StatusCode::UNAUTHORIZED);
                }
                "org/gated" => return status(StatusCode::FORBIDDEN),
                _ => {}
            }
            resolve(&model, revision, &file.join("/"), &request)
        }
        ["cdn", "weights"] => weights(*shared.fault.lock().unwrap()),
        _ => status(StatusCode::NOT_FOUND),
    }
}

fn known(model: &str) -> Response {
    if !MODELS.contains(&model) {
        return status(StatusCode::NOT_FOUND);
    }
    Response::new(Body::from(format!(r#"{{"id": "{model}", "sha": "{COMMIT}"}}"#)))
}

/// Small files come at once; the weights, as from Git LFS, over a redirect with their hash as ETag.
fn resolve(model: &str, revision: &str, name: &str, request: &Request) -> Response {
    if !MODELS.contains(&model) {
        return status(StatusCode::NOT_FOUND);
    }
    let Some(commit) = commit_of(revision) else {
        return status(StatusCode::NOT_FOUND);
    };
    let response = Response::builder().header("x-repo-commit", commit);
    let Some(content) = file(model, commit, name) else {
        return response.status(StatusCode::NOT_FOUND).body(Body::empty()).unwrap();
    };
    let sha256: String = Sha256::digest(content).iter().map(|b| format!("{b:02x}")).collect();
    if name == "model.safetensors" {
        let host = request.headers()[header::HOST].to_str().unwrap();
        return response
            .status(StatusCode::FOUND)
            .header("x-linked-etag", format!("\"{sha256}\""))
            .header("x-linked-size", content.len())
            .header(header::LOCATION, format!("http://{host}/cdn/weights"))
            .body(Body::empty())
            .unwrap();
    }
    let etag = format!("\"{}\"", &sha256[..40]);
    let response = response.header(header::ETAG, &etag);
    if request.headers().get(header::IF_NONE_MATCH).is_some_and(|given| given == etag.as_str()) {
        return response.status(StatusCode::NOT_MODIFIED).body(Body::empty()).unwrap();
    }
    let response = response.header(header::CONTENT_LENGTH, content.len());
    let body = match *request.method() {
        Method::HEAD => Body::empty(),
        _ => Body::from(content),
    };
    response.body(body).unwrap()
}

fn weights(fault: Option<Fault>) -> Response {
    match fault {
        None => Response::new(Body::from(WEIGHTS)),
        Some(Fault::ErrorPage) => {
            let mut page = Response::new(Body::from("<h1>Blocked by the proxy</h1>"));
            *page.status_mut() = StatusCode::FORBIDDEN;
            page
        }
        Some(Fault::OtherBytes) => Response::new(Body::from(WEIGHTS.to_ascii_uppercase())),
        Some(Fault::Truncated) => {
            let start = Ok(Bytes::from_static(&WEIGHTS[..5]));
            let end = Err(std::io::Error::other("cut"));
            Response::builder()
                .header(header::CONTENT_LENGTH, WEIGHTS.len())
                .body(Body::from_stream(futures_util::stream::iter([start, end])))
                .unwrap()
        }
    }
}

fn status(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}
