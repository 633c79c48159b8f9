//! The end of an upload in parts over HTTP: CompleteMultipartUpload by POST, AbortMultipartUpload by DELETE.

use super::object_http::{allowed, is_settled};
use super::object_parts::{Fault, MAX_PARTS, Named};
use super::object_refusal::Refused;
use super::plane::Plane;
use super::presign::Scope;
use actix_web::http::header::CONTENT_TYPE;
use actix_web::{HttpRequest, HttpResponse, web};

/// A list of [`MAX_PARTS`] parts, each with an ETag, checksums and spaces.
pub const MAX_LIST_BYTES: usize = 4 * 1024 * 1024;

/// POST: puts the object together out of the parts of the list.
pub async fn complete(
    request: HttpRequest,
    path: web::Path<String>,
    body: web::Bytes,
    plane: web::Data<Plane>,
) -> HttpResponse {
    let object = path.into_inner();
    put_together(&plane, &request, object, &body).await.unwrap_or_else(HttpResponse::from)
}

async fn put_together(
    plane: &Plane,
    request: &HttpRequest,
    object: String,
    body: &[u8],
) -> Result<HttpResponse, Refused> {
    let id = upload_of(plane, request, &object)?;
    if is_settled(plane, &object) {
        return Err(Refused::settled());
    }
    let parts = parts(body).map_err(|what| Refused::bad("MalformedXML", what))?;
    let (objects, limit, name) = (plane.objects.clone(), plane.limits.max_object_bytes, object.clone());
    // It goes on where the client hangs up: asked again, it gets the answer.
    let completed = web::block(move || objects.complete(&id, &name, &parts, limit)).await;
    let etag = completed.map_err(|_| Refused::ending())?.map_err(|fault| refused(&object, &fault))?;
    tracing::info!(object, etag, "object put together");
    let xml = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<CompleteMultipartUploadResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Key>{object}</Key><ETag>&quot;{etag}&quot;</ETag></CompleteMultipartUploadResult>"
    );
    Ok(HttpResponse::Ok().insert_header((CONTENT_TYPE, "application/xml")).body(xml))
}

fn refused(object: &str, fault: &Fault) -> Refused {
    let code = match fault {
        Fault::NoSuchUpload => return Refused::no_such_upload(),
        Fault::InvalidPart(_) => "InvalidPart",
        Fault::InvalidPartOrder => "InvalidPartOrder",
        Fault::TooSmall(_) => "EntityTooSmall",
        Fault::TooLarge => "EntityTooLarge",
        Fault::Io(error) => {
            tracing::error!(object, %error, "an object could not be put together: look at the disk");
            return Refused::internal("the object could not be put together");
        }
    };
    Refused::bad(code, fault.to_string())
}

/// DELETE: gives the upload up.
pub async fn abort(request: HttpRequest, path: web::Path<String>, plane: web::Data<Plane>) -> HttpResponse {
    give_up(&plane, &request, &path).await.unwrap_or_else(HttpResponse::from)
}

async fn give_up(plane: &Plane, request: &HttpRequest, object: &str) -> Result<HttpResponse, Refused> {
    let id = upload_of(plane, request, object)?;
    let objects = plane.objects.clone();
    let aborted = web::block(move || objects.abort(&id)).await.map_err(|_| Refused::ending())?;
    if !aborted.map_err(|error| refused(object, &Fault::Io(error)))? {
        return Err(Refused::no_such_upload());
    }
    tracing::info!(object, "upload in parts given up");
    Ok(HttpResponse::NoContent().finish())
}

/// The upload that the URL is for.
fn upload_of(plane: &Plane, request: &HttpRequest, object: &str) -> Result<String, Refused> {
    match allowed(plane, request, object)? {
        Scope::Upload(id) => Ok(id.to_owned()),
        Scope::Object | Scope::Part(..) => Err(Refused::bad("InvalidRequest", "the URL names no upload")),
    }
}

/// What CompleteMultipartUpload lists.
fn parts(body: &[u8]) -> Result<Vec<Named>, &'static str> {
    let text = std::str::from_utf8(body).map_err(|_| "the list of parts is not UTF-8")?;
    let list = roxmltree::Document::parse(text).map_err(|_| "the list of parts is no XML")?;
    let root = list.root_element();
    if root.tag_name().name() != "CompleteMultipartUpload" {
        return Err("the list of parts is not CompleteMultipartUpload");
    }
    let text_of = |part: roxmltree::Node<'_, '_>, name: &str| {
        let child = part.children().find(|child| child.tag_name().name() == name)?;
        child.text().map(|text| text.trim().to_owned())
    };
    let named = root.children().filter(|child| child.tag_name().name() == "Part").map(|part| {
        let number = text_of(part, "PartNumber").and_then(|number| number.parse().ok());
        Some(Named {
            number: number.filter(|number| (1..=MAX_PARTS).contains(number))?,
            etag: text_of(part, "ETag")?,
        })
    });
    let named: Vec<Named> = named.collect::<Option<_>>().ok_or("a part lacks its number or its ETag")?;
    if named.is_empty() { Err("the list has no parts") } else { Ok(named) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(inner: &str) -> String {
        format!("<CompleteMultipartUpload xmlns=\"x\">{inner}</CompleteMultipartUpload>")
    }

    #[test]
    fn a_list_is_read_as_any_client_of_s3_writes_it() {
        let named = |number, etag: &str| Named { number, etag: etag.into() };
        let plain = list("<Part><PartNumber>1</PartNumber><ETag>\"aa\"</ETag></Part>");
        assert_eq!(parts(plain.as_bytes()).unwrap(), [named(1, "\"aa\"")]);
        let other = list(
            "\n <Part>\n<ETag>&quot;aa&quot;</ETag><ChecksumSHA256>x</ChecksumSHA256><PartNumber> 2 </PartNumber></Part>\n<Part><PartNumber>10000</PartNumber><ETag>&#34;bb&#34;</ETag></Part>",
        );
        assert_eq!(parts(other.as_bytes()).unwrap(), [named(2, "\"aa\""), named(10_000, "\"bb\"")]);
    }

    #[test]
    fn what_is_no_list_is_refused() {
        let part =
            |number: &str| list(&format!("<Part><PartNumber>{number}</PartNumber><ETag>a</ETag></Part>"));
        let bombs = "<!DOCTYPE x [<!ENTITY a \"b\">]><CompleteMultipartUpload/>";
        for wrong in
            ["", "nonsense", "<Other/>", bombs, &list(""), &list("<Part/>"), &part("0"), &part("10001")]
        {
            assert!(parts(wrong.as_bytes()).is_err(), "{wrong}");
        }
        assert!(parts(b"\xff").is_err());
    }
}
