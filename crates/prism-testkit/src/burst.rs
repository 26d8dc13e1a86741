//! A client that gives up its calls before the server has looked at them.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const LIMIT: Duration = Duration::from_secs(20);

// Frame types and flags of HTTP/2.
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const CANCEL: [u8; 4] = [0, 0, 0, 8];

/// Opens `count` gRPC calls and gives each up, all in one write, as when a server had no time for a
/// client whose calls then timed out together. Returns whether the connection survived: whether a last
/// call on it is answered.
///
/// # Errors
/// When the server cannot be reached, or neither answers nor ends the connection in time.
pub async fn give_up_calls(server: SocketAddr, path: &str, namespace: &str, count: u32) -> io::Result<bool> {
    let headers = header_block(path, namespace);
    let last = 2 * count + 1;
    let mut bytes = PREFACE.to_vec();
    push_frame(&mut bytes, SETTINGS, 0, 0, &[]);
    for stream in (0..count).map(|call| 2 * call + 1) {
        push_frame(&mut bytes, HEADERS, END_HEADERS, stream, &headers);
        push_frame(&mut bytes, RST_STREAM, 0, stream, &CANCEL);
    }
    push_frame(&mut bytes, HEADERS, END_HEADERS | END_STREAM, last, &headers);
    let exchange = async {
        let mut connection = TcpStream::connect(server).await?;
        connection.write_all(&bytes).await?;
        is_answered(&mut connection, last).await
    };
    timeout(LIMIT, exchange).await?
}

async fn is_answered(connection: &mut TcpStream, call: u32) -> io::Result<bool> {
    loop {
        let mut head = [0; 9];
        match connection.read_exact(&mut head).await {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(error) => return Err(error),
        }
        let [a, b, c, kind, _, stream @ ..] = head;
        let length = u32::from_be_bytes([0, a, b, c]);
        connection.read_exact(&mut vec![0; length as usize]).await?;
        match kind {
            GOAWAY => return Ok(false),
            HEADERS if u32::from_be_bytes(stream) == call => return Ok(true),
            _ => {}
        }
    }
}

fn push_frame(bytes: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let [_, a, b, c] = (payload.len() as u32).to_be_bytes();
    bytes.extend([a, b, c, kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
}

/// Without compression, but for what the standard has numbers for.
fn header_block(path: &str, namespace: &str) -> Vec<u8> {
    const METHOD_POST: u8 = 0x83;
    const SCHEME_HTTP: u8 = 0x86;
    let mut block = vec![METHOD_POST, SCHEME_HTTP];
    for (name, value) in [(":path", path), (":authority", "server")]
        .into_iter()
        .chain([("content-type", "application/grpc"), ("te", "trailers")])
        .chain([("x-prism-namespace", namespace)])
    {
        block.push(0);
        for text in [name, value] {
            // A length that needs no second byte.
            block.push(u8::try_from(text.len()).unwrap_or(0) & 0x7f);
            block.extend(text.as_bytes());
        }
    }
    block
}
