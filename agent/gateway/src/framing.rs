//! Where a request's body ends (RFC 9112, section 6), so that the body's reader gets no byte after it.

use http::{HeaderMap, Version, header};

/// What is still to come of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Framing {
    /// This many bytes.
    Length(u64),
    /// `chunked`.
    Chunked(Chunks),
}

/// An error: the bytes are no chunk. hyper refuses them too.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NoChunk;

impl Framing {
    pub(crate) const NONE: Self = Self::Length(0);

    /// Reads from a head how its body is framed. Anything that two readers could understand differently is an error.
    ///
    /// # Errors
    /// What is wrong, as the end of a sentence.
    pub(crate) fn of(headers: &HeaderMap, version: Version) -> Result<Self, &'static str> {
        let mut encodings = headers.get_all(header::TRANSFER_ENCODING).iter();
        let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
        let length = match lengths.next() {
            Some(length) if lengths.all(|other| other == length) => Some(length.as_bytes()),
            Some(_) => return Err("has two lengths"),
            None => None,
        };
        if let Some(encoding) = encodings.next() {
            if length.is_some() {
                return Err("has both Content-Length and Transfer-Encoding");
            }
            if version != Version::HTTP_11 {
                return Err("has a Transfer-Encoding, which only HTTP/1.1 has");
            }
            if encodings.next().is_some() || !encoding.as_bytes().eq_ignore_ascii_case(b"chunked") {
                return Err("has a Transfer-Encoding that is not exactly `chunked`");
            }
            return Ok(Self::Chunked(Chunks::default()));
        }
        let Some(length) = length else { return Ok(Self::NONE) };
        let digits = !length.is_empty() && length.iter().all(u8::is_ascii_digit);
        let number = std::str::from_utf8(length).ok().filter(|_| digits).and_then(|text| text.parse::<i64>().ok());
        number
            .and_then(|length| length.try_into().ok())
            .map(Self::Length)
            .ok_or("has a Content-Length that is no length")
    }

    /// Whether nothing more is to come.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self, Self::Length(0) | Self::Chunked(Chunks::End))
    }

    /// How many of `bytes` belong to the body.
    ///
    /// # Errors
    /// The bytes are no chunks: from here on it is unknown where the body ends.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Result<usize, NoChunk> {
        match self {
            Self::Length(left) => {
                let taken = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= taken as u64;
                Ok(taken)
            }
            Self::Chunked(chunks) => chunks.take(bytes),
        }
    }
}

/// The position within a chunked body (RFC 9112, section 7.1). Extensions and trailers are passed over: hyper, which
/// reads them, has limits for them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Chunks {
    /// Before a size's first digit.
    #[default]
    Start,
    Size(u64),
    /// After the size.
    Rest(u64),
    SizeLf(u64),
    Data(u64),
    DataCr,
    DataLf,
    /// At the start of a trailer, or of the last line.
    Trailer,
    TrailerRest,
    TrailerLf,
    EndLf,
    End,
}

impl Chunks {
    fn take(&mut self, bytes: &[u8]) -> Result<usize, NoChunk> {
        let mut at = 0;
        while at < bytes.len() && *self != Self::End {
            if let Self::Data(left) = self {
                let taken = (bytes.len() - at).min(usize::try_from(*left).unwrap_or(usize::MAX));
                at += taken;
                *left -= taken as u64;
                if *left == 0 {
                    *self = Self::DataCr;
                }
                continue;
            }
            *self = self.next(bytes[at]).ok_or(NoChunk)?;
            at += 1;
        }
        Ok(at)
    }

    fn next(&self, byte: u8) -> Option<Self> {
        let digit = char::from(byte).to_digit(16).map(u64::from);
        Some(match (self, byte) {
            (Self::Start, _) => Self::Size(digit?),
            (Self::Size(size), b'\r') => Self::SizeLf(*size),
            (Self::Size(size), b' ' | b'\t' | b';') => Self::Rest(*size),
            (Self::Size(size), _) => Self::Size(size.checked_mul(16)?.checked_add(digit?)?),
            (Self::Rest(size), b'\r') => Self::SizeLf(*size),
            (Self::Rest(_), b'\n') => return None,
            (Self::Rest(size), _) => Self::Rest(*size),
            (Self::SizeLf(0), b'\n') => Self::Trailer,
            (Self::SizeLf(size), b'\n') => Self::Data(*size),
            (Self::DataCr, b'\r') => Self::DataLf,
            (Self::DataLf, b'\n') => Self::Start,
            (Self::Trailer, b'\r') => Self::EndLf,
            (Self::Trailer | Self::TrailerRest, b'\n') => return None,
            (Self::TrailerRest, b'\r') => Self::TrailerLf,
            (Self::Trailer | Self::TrailerRest, _) => Self::TrailerRest,
            (Self::TrailerLf, b'\n') => Self::Trailer,
            (Self::EndLf, b'\n') => Self::End,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn of(lines: &[(&'static str, &'static str)], version: Version) -> Result<Framing, &'static str> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        Framing::of(&headers, version)
    }

    #[test]
    fn one_length_or_chunks() {
        let of = |lines: &[_]| of(lines, Version::HTTP_11);
        assert_eq!(of(&[]), Ok(Framing::NONE));
        assert_eq!(of(&[("content-length", "12")]), Ok(Framing::Length(12)));
        assert_eq!(of(&[("content-length", "12"), ("content-length", "12")]), Ok(Framing::Length(12)));
        assert_eq!(of(&[("transfer-encoding", "Chunked")]), Ok(Framing::Chunked(Chunks::Start)));
        for lines in [
            &[("content-length", "12"), ("content-length", "13")][..],
            &[("content-length", "+1")],
            &[("content-length", "1, 1")],
            &[("content-length", "")],
            &[("content-length", "9223372036854775808")],
            &[("content-length", "3"), ("transfer-encoding", "chunked")],
            &[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")],
            &[("transfer-encoding", "gzip, chunked")],
            &[("transfer-encoding", "identity")],
        ] {
            assert!(of(lines).is_err(), "{lines:?}");
        }
        assert!(super::tests::of(&[("transfer-encoding", "chunked")], Version::HTTP_10).is_err());
    }

    #[test]
    fn a_body_ends_where_it_says_however_it_is_cut() {
        for (mut whole, body) in [
            (Framing::Length(5), "hello"),
            (Framing::Chunked(Chunks::Start), "5\r\nhello\r\n0\r\n\r\n"),
            (
                Framing::Chunked(Chunks::Start),
                "0005;a=\"b\"\r\nhello\r\n1 \t\r\n\n\r\n00\r\nTrailer: x\r\nY: z\r\n\r\n",
            ),
        ] {
            let bytes = [body.as_bytes(), b"GET /"].concat();
            let mut bytewise = whole.clone();
            assert_eq!(whole.take(&bytes), Ok(body.len()));
            assert!(whole.is_over());
            let taken: usize = bytes.chunks(1).map(|byte| bytewise.take(byte).unwrap()).sum();
            assert_eq!((taken, bytewise.is_over()), (body.len(), true), "{body}");
        }
    }

    #[test]
    fn what_is_no_chunk_is_seen() {
        for body in [
            "\r\n",
            "x\r\n",
            "5\nhello",
            "5\r\nhello!\r\n",
            "5\r\nhello\n",
            "5;a\n",
            "11111111111111111\r\n",
            "0\r\n\n",
            "0\r\na: b\n",
            "0\r\n\rx",
        ] {
            assert_eq!(Framing::Chunked(Chunks::Start).take(body.as_bytes()), Err(NoChunk), "{body:?}");
        }
    }
}
