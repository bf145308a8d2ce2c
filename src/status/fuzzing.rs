//! Doors to private decoders, for the targets in `fuzz/` alone.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
use tokio::sync::mpsc;

use super::metrics::{CATALOGUE, encode};
use super::protocol::Reply;
use super::text::to_text;
use super::{http, socket};
use crate::columns::Style;

/// Room of each direction of a connection, in bytes: longer than every accepted request.
const ROOM: usize = 64 << 10;

/// The bytes of a client of the HTTP server; returns the server's bytes.
pub async fn http(bytes: &[u8]) -> Vec<u8> {
    let (to_loop, stopped) = mpsc::channel(1);
    let (mut client, server) = duplex(ROOM);
    drop(stopped);
    let _closed_early = client.write_all(&bytes[..bytes.len().min(ROOM)]).await;
    let _closed_early = client.shutdown().await;
    http::serve(server, true, to_loop).await;
    let mut answer = Vec::new();
    let _cut = client.read_to_end(&mut answer).await;
    answer
}

/// The bytes of a client of the control socket; returns the server's bytes.
pub async fn control(bytes: &[u8]) -> Vec<u8> {
    let (to_loop, stopped) = mpsc::channel(1);
    drop(stopped);
    let (mut client, server) = duplex(ROOM);
    let _closed_early = client.write_all(&bytes[..bytes.len().min(ROOM)]).await;
    let _closed_early = client.shutdown().await;
    socket::serve(server, to_loop).await;
    let mut answer = Vec::new();
    let _cut = client.read_to_end(&mut answer).await;
    answer
}

/// The bytes of an agent's reply: the page of `status` and the metrics.
pub fn reply(bytes: &[u8]) {
    if let Ok(Reply::Status(snapshot)) = serde_json::from_slice(bytes) {
        let _page = to_text(&snapshot, 1_800_000_000, Style::Coloured);
        let _metrics = encode(CATALOGUE, &snapshot);
    }
}
