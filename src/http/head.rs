//! The head of an answer.

use super::NotHttp;

/// More headers than any server sends.
const MAX_HEADERS: usize = 64;

/// What a server answered.
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

/// The head at the beginning of the bytes, and its length; None while it is not whole. The caller bounds how much of one
/// it waits for.
///
/// # Errors
/// [`NotHttp`]
pub fn parse(bytes: &[u8]) -> Result<Option<(Answer, usize)>, NotHttp> {
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
        Err(_) => Err(NotHttp),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_answer_is_told_and_half_of_one_waited_for() {
        assert!(parse(b"nonsense\r\n\r\n").is_err());
        assert!(parse(b"HTTP/1.1 200 OK\r\nserv").unwrap().is_none());
        let (answer, _) = parse(b"HTTP/1.1 503 Slow Down\r\nRetry-After:  7 \r\n\r\n").unwrap().unwrap();
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("7")));
    }
}
