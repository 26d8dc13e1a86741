//! JSON merge patch (RFC 7396).

use std::cmp::Ordering;

use super::{
    Document,
    encode::Encoder,
    error::DocumentError,
    layout::{self, Fields, Raw},
};

/// `target` with `patch` applied: a null removes a field, an object is merged into the field's own
/// object, anything else takes the field's place.
///
/// # Errors
/// [`DocumentError::TooLarge`] when both together exceed the bound on a document.
///
/// ```
/// # use prism_filter::{Document, merge_patch};
/// let target = Document::from_json(br#"{"status":"online","place":{"floor":2,"room":"a"}}"#)?;
/// let patch = Document::from_json(br#"{"status":null,"place":{"room":"b"}}"#)?;
/// assert_eq!(merge_patch(&target, &patch)?.to_json(), br#"{"place":{"floor":2,"room":"b"}}"#);
/// # Ok::<(), prism_filter::DocumentError>(())
/// ```
pub fn merge_patch(target: &Document, patch: &Document) -> Result<Document, DocumentError> {
    let expected = target.byte_len() + patch.byte_len();
    Document::encode(expected, |encoder| {
        merge(encoder, target.raw().fields(), patch.raw().fields())
    })
}

fn merge(
    encoder: &mut Encoder,
    target: Option<Fields<'_>>,
    patch: Option<Fields<'_>>,
) -> Result<(), DocumentError> {
    let object = encoder.open()?;
    let mut target = target.into_iter().flat_map(|fields| fields.iter()).peekable();
    let mut patch = patch.into_iter().flat_map(|fields| fields.iter()).peekable();
    loop {
        let order = match (target.peek(), patch.peek()) {
            (None, None) => return encoder.close_object(object),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((ours, _)), Some((theirs, _))) => ours.cmp(theirs),
        };
        let ours = if order.is_le() { target.next() } else { None };
        let theirs = if order.is_ge() { patch.next() } else { None };
        field(encoder, ours, theirs)?;
    }
}

/// Writes what becomes of one field that the target, the patch or both have.
fn field<'a>(
    encoder: &mut Encoder,
    ours: Option<(&'a [u8], Raw<'a>)>,
    theirs: Option<(&'a [u8], Raw<'a>)>,
) -> Result<(), DocumentError> {
    let (key, value) = match (ours, theirs) {
        (_, Some((_, value))) if value.tag() == layout::NULL => return Ok(()),
        (_, Some(field)) | (Some(field), None) => field,
        (None, None) => return Ok(()),
    };
    let member = encoder.begin(key);
    match value.fields() {
        Some(patch) if theirs.is_some() => {
            merge(encoder, ours.and_then(|(_, value)| value.fields()), Some(patch))?;
        }
        _ => encoder.raw(value),
    }
    encoder.end(member)
}
