//! The control socket: permissions, and clients that misbehave.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use tokio::sync::mpsc;
use trailblazer::status::control::*;

use crate::agent::*;

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

/// Tries to listen, as a second agent would, and ends again.
fn listen(path: &Path) -> Result<(), ControlError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (to_loop, _questions) = mpsc::channel(1);
    let _here = runtime.enter();
    serve_socket(path, to_loop).map(drop)
}

/// The answer to these bytes.
fn say(path: &Path, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.write_all(bytes).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    reply
}

#[test]
fn socket_answers_its_three_requests() {
    let (_directory, path) = place();
    let agent = FakeAgent::start(&path, filled());
    let status = ask(&path, Request::Status).unwrap();
    assert_eq!(status, Reply::Status(Box::new(filled())));
    let pause = Request::Pause {
        by: "flush, pid 17".to_owned(),
    };
    for request in [Request::Kick, pause] {
        assert_eq!(ask(&path, request.clone()).unwrap(), Reply::Done);
        assert_eq!(agent.asked.lock().unwrap().last(), Some(&request));
    }
}

/// The documented protocol, without our own client.
#[test]
fn socket_speaks_the_documented_protocol() {
    let (_directory, path) = place();
    let _agent = FakeAgent::start(&path, filled());
    assert_eq!(say(&path, b"\"kick\"\n"), "\"done\"\n");
    assert_eq!(
        say(&path, b"{\"pause\":{\"by\":\"me\"}}"),
        "\"done\"\n",
        "the newline may be left out"
    );
    let status = say(&path, b"\"status\"\n");
    assert!(status.starts_with("{\"status\":{\"version\":"), "{status}");
    assert_eq!(status.matches('\n').count(), 1);
}

#[test]
fn socket_admits_owner_and_group_and_creates_its_directory() {
    let (_directory, path) = place();
    let agent = FakeAgent::start(&path, filled());
    assert_eq!(mode(&path), 0o660);
    // The umask may take from the others.
    assert_eq!(mode(path.parent().unwrap()) | 0o055, 0o755);
    drop(agent);
    assert!(!path.exists(), "it goes with its server");
    assert!(path.parent().unwrap().exists());
}

#[test]
fn abandoned_socket_is_replaced() {
    let (_directory, path) = place();
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    drop(UnixListener::bind(&path).unwrap());
    assert!(matches!(
        ask(&path, Request::Status),
        Err(AskError::NoAgent { .. })
    ));
    let _agent = FakeAgent::start(&path, filled());
    assert!(ask(&path, Request::Status).is_ok());
}

/// After `kill -9` during the start of a child program, the forked copy keeps the socket until its
/// exec.
#[test]
fn socket_held_by_a_dying_copy_is_replaced() {
    let (_directory, path) = place();
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let copy = UnixListener::bind(&path).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let copy = copy;
            std::thread::sleep(std::time::Duration::from_millis(100));
            drop(copy);
        });
        listen(&path).unwrap();
    });
}

#[test]
fn second_agent_names_the_first() {
    let (_directory, path) = place();
    let _agent = FakeAgent::start(&path, filled());
    let error = listen(&path).unwrap_err().to_string();
    assert!(
        error.contains("another agent (pid 4242) is running"),
        "{error}"
    );
    assert!(ask(&path, Request::Status).is_ok(), "the first goes on");
}

#[test]
fn non_socket_file_is_left_alone() {
    let (_directory, path) = place();
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, "precious").unwrap();
    let error = listen(&path).unwrap_err();
    assert!(matches!(error, ControlError::NoSocket(_)), "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    let under_a_file = path.join("control.sock");
    let error = listen(&under_a_file).unwrap_err();
    assert!(matches!(error, ControlError::Refused { .. }), "{error}");
}

/// The end of the first agent does not remove the socket of the next one.
#[test]
fn successors_socket_stays() {
    let (_directory, path) = place();
    let first = FakeAgent::start(&path, filled());
    std::fs::remove_file(&path).unwrap();
    let _second = FakeAgent::start(&path, filled());
    drop(first);
    assert!(ask(&path, Request::Status).is_ok());
}

#[test]
fn garbage_is_refused_and_affects_no_other_client() {
    let (_directory, path) = place();
    let agent = FakeAgent::start(&path, filled());
    for garbage in [
        &b"\n"[..],
        b"status\n",
        b"\"explode\"\n",
        b"\"pause\"\n",
        b"{\"status\":7}\n",
        b"\xff\xfe\x00\n",
        b"GET / HTTP/1.1\r\n",
    ] {
        let reply = say(&path, garbage);
        assert!(
            reply.starts_with("{\"refused\":\"unknown request: "),
            "{garbage:?}: {reply}"
        );
    }
    assert_eq!(say(&path, b""), "");
    // More than a request may have: the server stops to read, and may have closed by then.
    let mut stream = UnixStream::connect(&path).unwrap();
    let _ = stream.write_all(&[b'x'; 1 << 20]);
    let mut reply = [0; 256];
    let count = stream.read(&mut reply).unwrap_or(0);
    let reply = String::from_utf8_lossy(&reply[..count]).into_owned();
    assert!(
        reply.is_empty() || reply.contains("longer than 4096 bytes"),
        "{reply}"
    );
    assert!(agent.asked.lock().unwrap().is_empty());
    assert!(ask(&path, Request::Status).is_ok());
}

/// More silent clients than the server's limit, and then an honest one.
#[test]
fn silent_clients_block_no_other_client() {
    let (_directory, path) = place();
    let _agent = FakeAgent::start(&path, filled());
    let mut silent: Vec<UnixStream> = (0..200)
        .map(|_| UnixStream::connect(&path).unwrap())
        .collect();
    // Half a request is as good as none.
    silent.last_mut().unwrap().write_all(b"{\"req").unwrap();
    assert!(ask(&path, Request::Status).is_ok());
    assert_eq!(silent.len(), 200);
}

#[test]
fn many_concurrent_clients_are_served() {
    let (_directory, path) = place();
    let agent = FakeAgent::start(&path, filled());
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..32)
            .map(|_| scope.spawn(|| ask(&path, Request::Status).unwrap()))
            .collect();
        for client in clients {
            assert!(matches!(client.join().unwrap(), Reply::Status(_)));
        }
    });
    assert_eq!(agent.asked.lock().unwrap().len(), 32);
}

#[test]
fn client_distinguishes_stuck_ended_and_refusing_agents() {
    let (_directory, path) = place();
    let stuck = FakeAgent::behaving(&path, Box::new(|_| None));
    let error = ask(&path, Request::Kick).unwrap_err();
    assert!(matches!(error, AskError::NoAnswer { .. }), "{error}");
    drop(stuck);
    let no = |_: &Request| Some(Reply::Refused("not now".to_owned()));
    let _agent = FakeAgent::behaving(&path, Box::new(no));
    assert_eq!(
        ask(&path, Request::Kick).unwrap(),
        Reply::Refused("not now".to_owned())
    );
}

/// The client's messages for answers of a foreign server.
#[test]
fn client_distinguishes_failures() {
    let (directory, path) = place();
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let answer_of = |reply: Option<&'static [u8]>| {
        let listener = UnixListener::bind(&path).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 64];
            let _ = stream.read(&mut request).unwrap();
            match reply {
                Some(reply) => stream.write_all(reply).unwrap(),
                // Until the client gives up.
                None => drop(stream.read(&mut request)),
            }
        });
        let answer = ask(&path, Request::Kick);
        server.join().unwrap();
        std::fs::remove_file(&path).unwrap();
        answer
    };
    for nonsense in [&b"hello\n"[..], b"\"perhaps\"\n", b"{\"refused\":"] {
        let error = answer_of(Some(nonsense)).unwrap_err();
        assert!(matches!(error, AskError::UnexpectedReply { .. }), "{error}");
    }
    let ended = answer_of(Some(b"")).unwrap_err();
    assert!(matches!(ended, AskError::NoAnswer { .. }), "{ended}");
    let silent = answer_of(None).unwrap_err().to_string();
    assert!(silent.contains("did not answer within 6 s"), "{silent}");
    let nobody = ask(&path, Request::Kick).unwrap_err();
    assert!(matches!(nobody, AskError::NoAgent { .. }), "{nobody}");
    let nowhere = ask(&directory.path().join("a/b/c"), Request::Kick).unwrap_err();
    assert!(matches!(nowhere, AskError::NoAgent { .. }), "{nowhere}");
    let long = directory.path().join("x".repeat(200));
    let long = ask(&long, Request::Kick).unwrap_err();
    assert!(matches!(long, AskError::Failed { .. }), "{long}");
}
