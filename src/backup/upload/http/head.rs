//! Answers taken apart.

/// More headers than any store sends.
const MAX_HEADERS: usize = 64;

/// What a store answered.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// HTTP.
    pub status: u16,
    /// Names in small letters.
    headers: Vec<(String, String)>,
    /// As far as it could be read.
    pub body: Vec<u8>,
}

impl Answer {
    /// A header's value; the first one where there are several.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// 2xx
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// The head at the beginning of the bytes, and its length; None while it is not whole.
pub fn parse(bytes: &[u8]) -> Result<Option<(Answer, usize)>, &'static str> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    match response.parse(bytes) {
        Ok(httparse::Status::Complete(len)) => {
            let headers = response
                .headers
                .iter()
                .map(|header| {
                    let value = String::from_utf8_lossy(header.value).trim().to_owned();
                    (header.name.to_ascii_lowercase(), value)
                })
                .collect();
            Ok(Some((Answer { status: response.code.unwrap_or(0), headers, body: Vec::new() }, len)))
        }
        Ok(httparse::Status::Partial) => Ok(None),
        Err(_) => Err("the store's answer was not HTTP"),
    }
}

/// The body, once it is whole. `ended` says that nothing comes any more.
pub fn body_of(answer: &Answer, bytes: &[u8], ended: bool) -> Option<Vec<u8>> {
    if answer.status == 204 || answer.status == 304 {
        return Some(Vec::new());
    }
    let coding = answer.header("transfer-encoding").unwrap_or_default();
    if coding.to_ascii_lowercase().contains("chunked") {
        return dechunked(bytes);
    }
    match answer.header("content-length").and_then(|length| length.parse::<usize>().ok()) {
        Some(length) => bytes.get(..length).map(<[u8]>::to_vec),
        None => ended.then(|| bytes.to_vec()),
    }
}

/// RFC 9112 section 7.1; None while it is not whole.
fn dechunked(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = bytes.windows(2).position(|two| two == b"\r\n")?;
        let (line, rest) = bytes.split_at(end);
        let size = std::str::from_utf8(line).ok()?.split(';').next()?.trim();
        let size = usize::from_str_radix(size, 16).ok()?;
        let rest = rest.get(2..)?;
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(rest.get(..size)?);
        bytes = rest.get(size.checked_add(2)?..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(text: &str, ended: bool) -> Option<String> {
        let (answer, len) = parse(text.as_bytes()).unwrap().unwrap();
        body_of(&answer, &text.as_bytes()[len..], ended).map(|body| String::from_utf8(body).unwrap())
    }

    #[test]
    fn a_body_is_whole_by_its_length_its_chunks_or_the_end() {
        assert_eq!(body("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", false).as_deref(), Some("abc"));
        assert_eq!(body("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nabc", true), None);
        let chunked =
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n";
        assert_eq!(body(chunked, false).as_deref(), Some("abcde"));
        for cut in 0..10 {
            let short = &chunked[..chunked.len() - 5 - cut];
            assert_eq!(body(short, true), None, "{short:?}");
        }
        assert_eq!(body("HTTP/1.1 200 OK\r\n\r\nabc", false), None);
        assert_eq!(body("HTTP/1.1 200 OK\r\n\r\nabc", true).as_deref(), Some("abc"));
        assert_eq!(body("HTTP/1.1 204 No\r\n\r\n", false).as_deref(), Some(""));
    }

    #[test]
    fn what_is_no_answer_is_told_and_half_of_one_waited_for() {
        assert!(parse(b"nonsense\r\n\r\n").is_err());
        assert!(parse(b"HTTP/1.1 200 OK\r\nserv").unwrap().is_none());
        let (answer, _) = parse(b"HTTP/1.1 503 Slow Down\r\nRetry-After:  7 \r\n\r\n").unwrap().unwrap();
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("7")));
    }
}
