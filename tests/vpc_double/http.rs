//! The double behind HTTP: faults of connections, and signatures.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use cloud::{Fault, Keys, Serve, Server, Signature, Wrong, serve};

use crate::world::account;

const FORM: &str = "Action=DescribeVpcs&Version=2016-11-15";

/// Sends a request by hand, and returns the connection.
fn request(server: &Server, head: &str) -> TcpStream {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let request = format!(
        "{head}Host: {}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{FORM}",
        server.address(),
        FORM.len()
    );
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

const HEAD: &str = "POST / HTTP/1.1\r\nContent-Type: application/x-www-form-urlencoded\r\n";

/// Reads until the end of the connection.
fn read(mut stream: TcpStream) -> std::io::Result<String> {
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

#[test]
fn a_form_is_answered_with_the_request_id_in_a_header() {
    let cloud = account();
    let server = serve(&cloud, Serve::default()).unwrap();
    let text = read(request(&server, HEAD)).unwrap();
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
    assert!(text.contains("x-amzn-requestid: 5f1d0000-"), "{text}");
    assert!(
        date(&text).abs_diff(jiff::Timestamp::now().as_second()) < 60,
        "{text}"
    );
    assert!(text.ends_with("</DescribeVpcsResponse>"), "{text}");
    let text = read(request(&server, "GET / HTTP/1.1\r\n")).unwrap();
    assert!(text.contains("MalformedQueryString"), "{text}");
    assert_eq!(cloud.violations().len(), 1);
    assert_eq!(cloud.calls().len(), 2);
}

/// The time of an answer, in seconds since 1970.
fn date(text: &str) -> i64 {
    let date = text.split_once("date: ").unwrap().1;
    let date = date.split_once("\r\n").unwrap().0;
    let date = jiff::fmt::rfc2822::parse(date).unwrap();
    date.timestamp().as_second()
}

/// Clocks that are off by up to 800 years, so that each kind of year is met.
#[test]
fn the_servers_clock_is_ahead_by_its_offset() {
    for days in [0, 1, 59, 365, 700, 1461, 36_524, 36_525, 146_097, 292_193] {
        let clock_offset = days * 86_400;
        let settings = Serve {
            clock_offset,
            ..Serve::default()
        };
        let server = serve(&account(), settings).unwrap();
        let text = read(request(&server, HEAD)).unwrap();
        let wanted = jiff::Timestamp::now().as_second() + clock_offset;
        assert!(date(&text).abs_diff(wanted) < 60, "{days}: {text}");
    }
}

#[test]
fn connections_drop_hang_break_off_and_wait() {
    let cloud = account();
    let server = serve(&cloud, Serve::default()).unwrap();
    cloud.fail_next(Fault::after(Wrong::Dropped));
    assert_eq!(read(request(&server, HEAD)).unwrap(), "");
    cloud.fail_next(Fault::after(Wrong::Half));
    let half = read(request(&server, HEAD)).unwrap();
    let (head, body) = half.split_once("\r\n\r\n").unwrap();
    let announced = head.split_once("content-length: ").unwrap().1;
    let announced: usize = announced.lines().next().unwrap().parse().unwrap();
    assert_eq!(body.len(), announced / 2);
    cloud.fail_next(Fault::after(Wrong::Slow(Duration::from_millis(120))));
    let start = Instant::now();
    assert!(read(request(&server, HEAD)).unwrap().contains("200 OK"));
    assert!(start.elapsed() >= Duration::from_millis(120));
    cloud.fail_next(Fault::after(Wrong::Hangs));
    let hanging = request(&server, HEAD);
    hanging
        .set_read_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    let silence = read(hanging).unwrap_err().kind();
    assert!(
        matches!(silence, ErrorKind::WouldBlock | ErrorKind::TimedOut),
        "{silence:?}"
    );
    assert_eq!(cloud.reads(), 4);
}

/// The server ends with its handle, while a connection hangs.
#[test]
fn a_dropped_server_closes_its_port() {
    let cloud = account();
    let server = serve(&cloud, Serve::default()).unwrap();
    let address = server.address();
    cloud.fail_next(Fault::before(Wrong::Hangs));
    let stream = request(&server, HEAD);
    while cloud.calls().is_empty() {
        std::thread::sleep(Duration::from_millis(1));
    }
    drop(server);
    assert_eq!(read(stream).unwrap_or_default(), "");
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn a_request_without_the_hash_of_its_body_is_held_against_the_client() {
    let cloud = account();
    let settings = Serve {
        content_sha256: true,
        ..Serve::default()
    };
    let server = serve(&cloud, settings).unwrap();
    let text = read(request(&server, HEAD)).unwrap();
    assert!(text.contains("SignatureDoesNotMatch"), "{text}");
    assert_eq!(cloud.violations().len(), 1);
}

#[test]
fn requests_without_a_signature_or_with_a_wrong_one_are_refused() {
    let hash = "x-amz-content-sha256: UNSIGNED-PAYLOAD\r\n";
    let signed = "Authorization: AWS4-HMAC-SHA256 \
        Credential=AKID/20240101/us-east-1/ec2/aws4_request, \
        SignedHeaders=host;x-amz-date, \
        Signature=0000000000000000000000000000000000000000000000000000000000000000\r\n\
        X-Amz-Date: 20240101T000000Z\r\n";
    let keys = Keys {
        access: "AKID".to_owned(),
        secret: "secret".to_owned(),
        token: None,
    };
    for (signature, fields, wanted) in [
        (Signature::Form, String::new(), "AuthFailure"),
        (
            Signature::Form,
            format!("{signed}{hash}"),
            "SignatureDoesNotMatch",
        ),
        (Signature::Form, signed.to_owned(), "200 OK"),
        (
            Signature::Verified(keys),
            signed.to_owned(),
            "RequestExpired",
        ),
    ] {
        let cloud = account();
        let settings = Serve {
            signature,
            ..Serve::default()
        };
        let server = serve(&cloud, settings).unwrap();
        let text = read(request(&server, &format!("{HEAD}{fields}"))).unwrap();
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
}
