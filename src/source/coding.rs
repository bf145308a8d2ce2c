//! Content codings of a body, and compressed files.

use std::io::{self, Read};

use flate2::bufread::GzDecoder;

use super::error::Failure;

/// Most layers of compression. A server that compresses the file of a publisher who has compressed
/// the file already makes two.
const MAX_LAYERS: usize = 4;

/// The first bytes of a gzip member (RFC 1952). No JSON text begins with these bytes.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Accepts the codings of a `Content-Encoding` header. Servers write the names in any case, leave
/// the header empty (S3, after a chunked upload), use the name of HTTP/1.0 (`x-gzip`), and list
/// several codings.
pub(super) fn check<'h>(headers: impl Iterator<Item = &'h str>) -> Result<(), Failure> {
    let known = ["", "identity", "gzip", "x-gzip"];
    for coding in headers.flat_map(|list| list.split(',')) {
        let coding = coding.trim();
        if !known.iter().any(|name| name.eq_ignore_ascii_case(coding)) {
            return Err(Failure::Encoding(coding.to_owned()));
        }
    }
    Ok(())
}

/// Removes every layer of gzip, at most to `limit` bytes: a small body can expand to any size. The
/// content decides, since files have no headers and headers are wrong in both directions.
pub(super) fn decode(mut bytes: Vec<u8>, limit: u64) -> Result<Vec<u8>, Failure> {
    for _ in 0..MAX_LAYERS {
        if !bytes.starts_with(&GZIP) {
            return Ok(bytes);
        }
        bytes = gunzip(&bytes, limit)?;
    }
    if bytes.starts_with(&GZIP) {
        let layers = format!("more than {MAX_LAYERS} layers of gzip");
        return Err(Failure::Encoding(layers));
    }
    Ok(bytes)
}

/// Decodes all members of a gzip file, one after the other, up to an end of padding zeros.
fn gunzip(mut bytes: &[u8], limit: u64) -> Result<Vec<u8>, Failure> {
    let mut out = Vec::new();
    let mut members = 0;
    while bytes.iter().any(|byte| *byte != 0) {
        if members > 0 && !bytes.starts_with(&GZIP) {
            let rest = bytes.len();
            return Err(Failure::Unusable(format!(
                "{rest} bytes after the end of the gzip data are no further gzip data: check the file and the server"
            )));
        }
        members += 1;
        let room = limit.saturating_sub(out.len() as u64);
        let mut member = GzDecoder::new(&mut bytes).take(room.saturating_add(1));
        member
            .read_to_end(&mut out)
            .map_err(|error| broken(&error))?;
        if out.len() as u64 > limit {
            return Err(Failure::TooLarge {
                limit,
                announced: None,
            });
        }
    }
    Ok(out)
}

fn broken(error: &io::Error) -> Failure {
    let reason = match error.kind() {
        io::ErrorKind::UnexpectedEof => "the gzip data ends too early".to_owned(),
        _ => format!("the gzip data is damaged ({error})"),
    };
    Failure::Broken(reason)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::write::GzEncoder;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn every_spelling_of_a_known_coding_is_accepted() {
        for headers in [
            &[][..],
            &[""],
            &["identity"],
            &["GZIP"],
            &["x-gzip"],
            &["gzip, X-GZip"],
            &["gzip", " Identity "],
            &["gzip,,gzip"],
        ] {
            assert!(check(headers.iter().copied()).is_ok(), "{headers:?}");
        }
        for header in ["br", "gzip, zstd", "deflate", "aws-chunked"] {
            let failure = check(std::iter::once(header)).unwrap_err();
            assert!(matches!(failure, Failure::Encoding(_)), "{header}");
        }
    }

    #[test]
    fn layers_and_members_are_decoded() {
        let plain = br#"{"a": 1}"#;
        assert_eq!(decode(plain.to_vec(), 8).unwrap(), plain);
        assert_eq!(decode(gzip(&gzip(plain)), 100).unwrap(), plain);
        let members = [gzip(&plain[..3]), gzip(b""), gzip(&plain[3..])].concat();
        assert_eq!(decode(members.clone(), 8).unwrap(), plain);
        assert_eq!(decode([members, vec![0; 9]].concat(), 8).unwrap(), plain);
    }

    #[test]
    fn damaged_and_endless_data_is_refused() {
        let whole = gzip(&[b'x'; 5000]);
        for cut in 2..whole.len() {
            let failure = decode(whole[..cut].to_vec(), 9000).unwrap_err();
            assert!(matches!(failure, Failure::Broken(_)), "{cut}: {failure}");
        }
        assert!(matches!(
            decode(whole.clone(), 4999).unwrap_err(),
            Failure::TooLarge { limit: 4999, .. }
        ));
        let with_rest = [whole.clone(), b"rest".to_vec()].concat();
        assert!(matches!(
            decode(with_rest, 9000).unwrap_err(),
            Failure::Unusable(_)
        ));
        let deep = (0..6).fold(b"x".to_vec(), |inner, _| gzip(&inner));
        assert!(matches!(
            decode(deep, 9000).unwrap_err(),
            Failure::Encoding(_)
        ));
    }
}
