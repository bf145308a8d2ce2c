use std::collections::HashMap;
use std::path::Path;

use reqsign_core::StaticEnv;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::source::web::WebSettings;

const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYGEHEIM";

fn web() -> Web {
    Web::new(WebSettings {
        connect_timeout: Duration::from_secs(1),
        proxies: false,
        max_bytes: 65_536,
    })
}

fn credentials(home: &Path, variables: &[(&str, &str)]) -> Credentials {
    let owned = |text: &str| text.to_owned();
    let mut envs: HashMap<String, String> = variables
        .iter()
        .map(|(name, value)| (owned(name), owned(value)))
        .collect();
    envs.entry(owned("AWS_EC2_METADATA_DISABLED"))
        .or_insert_with(|| owned("true"));
    let variables = StaticEnv {
        home_dir: Some(home.to_owned()),
        envs,
    };
    Credentials::new(&Region::from("eu-central-1"), web(), variables)
}

fn write(home: &Path, name: &str, text: &str) {
    let directory = home.join(".aws");
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join(name), text).unwrap();
}

async fn found(credentials: &Credentials) -> String {
    credentials.get().await.unwrap().access_key_id
}

#[tokio::test]
async fn places_are_asked_in_the_order_of_aws() {
    let home = tempfile::tempdir().unwrap();
    write(
        home.path(),
        "credentials",
        &format!("[default]\naws_access_key_id = FILE\naws_secret_access_key = {SECRET}\n"),
    );
    write(
        home.path(),
        "config",
        &format!(
            "[profile p]\naws_access_key_id = CONFIG\naws_secret_access_key = {SECRET}\n\
             [profile run]\ncredential_process = /bin/echo {{\"Version\":1,\"AccessKeyId\":\"PROCESS\",\"SecretAccessKey\":\"{SECRET}\"}}\n"
        ),
    );
    let keys = [
        ("AWS_ACCESS_KEY_ID", "VARIABLE"),
        ("AWS_SECRET_ACCESS_KEY", SECRET),
    ];
    assert_eq!(found(&credentials(home.path(), &keys)).await, "VARIABLE");
    assert_eq!(found(&credentials(home.path(), &[])).await, "FILE");
    let profile = credentials(home.path(), &[("AWS_PROFILE", "p")]);
    assert_eq!(found(&profile).await, "CONFIG");
    let process = credentials(home.path(), &[("AWS_PROFILE", "run")]);
    assert_eq!(found(&process).await, "PROCESS");
}

#[tokio::test]
async fn absence_is_told_with_every_place() {
    let home = tempfile::tempdir().unwrap();
    let nothing = credentials(home.path(), &[("AWS_ACCESS_KEY_ID", "AKIA")]);
    let text = nothing.get().await.unwrap_err();
    for part in [
        "AWS_SECRET_ACCESS_KEY is not set",
        "the profile \"default\" (the profile has no aws_access_key_id)",
        "Identity Center",
        "AWS_WEB_IDENTITY_TOKEN_FILE is not set",
        "credential_process",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI is not set",
        "AWS_EC2_METADATA_DISABLED is set",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[tokio::test]
async fn assumed_role_in_a_profile_is_named_as_unsupported() {
    let home = tempfile::tempdir().unwrap();
    let profile = "[profile r]\nrole_arn = arn:aws:iam::1:role/x\nsource_profile = default\n";
    write(home.path(), "config", profile);
    let role = credentials(home.path(), &[("AWS_PROFILE", "r")]);
    let text = role.get().await.unwrap_err();
    assert!(
        text.contains("role_arn and source_profile are not supported"),
        "{text}"
    );
}

#[tokio::test]
async fn configured_place_that_fails_ends_the_search_without_its_secret() {
    let home = tempfile::tempdir().unwrap();
    let config = format!(
        "[default]\ncredential_process = /bin/echo {{\"Version\":\"{SECRET}\",\"AccessKeyId\":1}}\n"
    );
    write(home.path(), "config", &config);
    let uri = "http://127.0.0.1:1/credentials";
    let variables = [("AWS_CONTAINER_CREDENTIALS_FULL_URI", uri)];
    let text = credentials(home.path(), &variables)
        .get()
        .await
        .unwrap_err();
    assert!(text.contains("credential_process failed"), "{text}");
    assert!(!text.contains(SECRET), "{text}");
    write(home.path(), "config", "");
    let text = credentials(home.path(), &variables)
        .get()
        .await
        .unwrap_err();
    assert!(text.contains("the container failed"), "{text}");
    assert!(text.contains("127.0.0.1:1"), "{text}");
    let token = [
        ("AWS_WEB_IDENTITY_TOKEN_FILE", "/nonexistent/token"),
        ("AWS_ROLE_ARN", "arn:aws:iam::1:role/x"),
        variables[0],
    ];
    let text = credentials(home.path(), &token).get().await.unwrap_err();
    assert!(text.contains("the web identity failed"), "{text}");
}

#[tokio::test]
async fn temporary_credentials_are_forgotten_and_fixed_ones_are_not_renewable() {
    let home = tempfile::tempdir().unwrap();
    let keys = [
        ("AWS_ACCESS_KEY_ID", "VARIABLE"),
        ("AWS_SECRET_ACCESS_KEY", SECRET),
        ("AWS_SESSION_TOKEN", "SESSION"),
    ];
    let temporary = credentials(home.path(), &keys);
    assert!(!temporary.forget().await, "nothing is cached yet");
    found(&temporary).await;
    assert!(temporary.forget().await);
    let fixed = credentials(home.path(), &keys[..2]);
    found(&fixed).await;
    assert!(!fixed.forget().await);
}

/// A server that answers each connection with the next of the bodies; returns its URL and the requests.
async fn server(bodies: Vec<String>) -> (String, tokio::task::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let task = tokio::spawn(async move {
        let mut requests = Vec::new();
        for body in bodies {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut buffer = [0; 4096];
            let read = stream.read(&mut buffer).await.unwrap();
            requests.push(String::from_utf8_lossy(&buffer[..read]).into_owned());
            let head = format!(
                "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            stream.write_all((head + &body).as_bytes()).await.unwrap();
        }
        requests
    });
    (url, task)
}

fn answer_with(id: &str, expires_in: i64) -> String {
    let until = jiff::Timestamp::now().as_second() + expires_in;
    let until = jiff::Timestamp::from_second(until).unwrap();
    format!(
        r#"{{"Code": "Success", "AccessKeyId": "{id}", "SecretAccessKey": "{SECRET}", "Token": "t", "Expiration": "{until}"}}"#
    )
}

#[tokio::test]
async fn role_of_the_instance_is_found_with_a_session_of_the_metadata_service() {
    let bodies = ["TOKEN", "role", &answer_with("INSTANCE", 3_600)];
    let (url, task) = server(bodies.map(str::to_owned).to_vec()).await;
    let home = tempfile::tempdir().unwrap();
    let variables = [
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", url.as_str()),
        ("AWS_EC2_METADATA_DISABLED", ""),
    ];
    let credentials = credentials(home.path(), &variables);
    assert_eq!(found(&credentials).await, "INSTANCE");
    assert_eq!(found(&credentials).await, "INSTANCE", "from the cache");
    let requests = task.await.unwrap();
    assert!(requests[0].starts_with("PUT /latest/api/token "));
    assert!(requests[2].contains("x-aws-ec2-metadata-token: TOKEN"));
}

#[tokio::test]
async fn credentials_are_renewed_before_they_expire_and_kept_while_renewal_fails() {
    let bodies = vec![answer_with("SOON", 60), answer_with("LATER", 3_600)];
    let (url, task) = server(bodies).await;
    let home = tempfile::tempdir().unwrap();
    let uri = format!("{url}/role");
    let variables = [("AWS_CONTAINER_CREDENTIALS_FULL_URI", uri.as_str())];
    let credentials = credentials(home.path(), &variables);
    assert_eq!(found(&credentials).await, "SOON");
    assert_eq!(found(&credentials).await, "LATER");
    task.await.unwrap();
    let soon = Credential {
        expires_in: Some(Timestamp::now() + Duration::from_secs(60)),
        ..credentials.get().await.unwrap()
    };
    *credentials.cached.lock().await = Some(soon);
    assert_eq!(found(&credentials).await, "LATER", "the server is gone");
}

#[tokio::test]
async fn silent_metadata_service_leaves_the_other_places_in_the_message() {
    let home = tempfile::tempdir().unwrap();
    let variables = [
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1"),
        ("AWS_EC2_METADATA_DISABLED", ""),
    ];
    let text = credentials(home.path(), &variables)
        .get()
        .await
        .unwrap_err();
    for part in [
        "AWS_ACCESS_KEY_ID is not set",
        "the metadata service (",
        "127.0.0.1:1",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[tokio::test]
async fn debug_output_shows_no_part_of_a_secret() {
    let home = tempfile::tempdir().unwrap();
    let keys = [
        ("AWS_ACCESS_KEY_ID", "VARIABLE"),
        ("AWS_SECRET_ACCESS_KEY", SECRET),
    ];
    let credentials = credentials(home.path(), &keys);
    found(&credentials).await;
    let text = format!("{credentials:?}");
    assert!(!text.contains("wJa") && !text.contains("EIM"), "{text}");
}
