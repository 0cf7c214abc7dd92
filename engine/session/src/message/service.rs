//! The bytes of questions and answers. Their content is not looked at: every content is valid.

use std::mem::offset_of;
use std::num::NonZeroU32;

use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U32};

use super::error::{MessageField, ParseError};
use super::fields::{Output, Parts, name};
use super::wire::{self, HEADER};
use crate::name::Name;
use crate::service::{
    AskNumber, ServiceAnswer, ServiceAsk, ServiceNumber, ServiceRefusal, ServiceRefusalCode,
};

pub(super) fn encode_ask(ask: &ServiceAsk, out: Output<'_>) {
    let ServiceAsk { number, service, content } = ask;
    let fixed =
        wire::Ask { number: U32::new(number.0.get()), service: U16::new(service.0), zero: U16::new(0) };
    out.content(&fixed, content);
}

pub(super) fn encode_answer(answer: &ServiceAnswer, out: Output<'_>) {
    let (status, content): (_, &[u8]) = match &answer.result {
        Ok(content) => (0, content),
        Err(refusal) => (refusal.code.to_wire(), refusal.text.field()),
    };
    let number = U32::new(answer.number.0.get());
    out.content(&wire::Answer { number, status: U16::new(status), zero: U16::new(0) }, content);
}

pub(super) fn ask(parts: Parts<'_>) -> Result<ServiceAsk, ParseError> {
    let read: &wire::Ask = parts.fixed()?;
    no_value(parts, HEADER + offset_of!(wire::Ask, zero), read.zero)?;
    let number = number(parts, read.number)?;
    Ok(ServiceAsk {
        number,
        service: ServiceNumber(read.service.get()),
        content: parts.items::<u8>()?.to_vec(),
    })
}

pub(super) fn answer(parts: Parts<'_>) -> Result<ServiceAnswer, ParseError> {
    let (read, content): (&wire::Answer, &[u8]) = (parts.fixed()?, parts.items()?);
    no_value(parts, HEADER + offset_of!(wire::Answer, zero), read.zero)?;
    let result = match ServiceRefusalCode::from_wire(read.status.get()) {
        None => Ok(content.to_vec()),
        Some(code) => {
            let field = content.try_into().map_err(|_| {
                parts.field("count", content.len() as u64, "64 where there is no answer: a text")
            })?;
            let text: Name<64> = name(parts.kind, MessageField::of_message("text"), field)?;
            Err(ServiceRefusal { code, text })
        }
    };
    Ok(ServiceAnswer { number: number(parts, read.number)?, result })
}

/// A reserved field has no value. Questions and answers are not encoded again to find that, as
/// other messages are: they may be long, and come often.
fn no_value(parts: Parts<'_>, at: usize, field: U16) -> Result<(), ParseError> {
    match field.as_bytes().iter().position(|&byte| byte != 0) {
        None => Ok(()),
        Some(place) => {
            let got = field.as_bytes()[place];
            Err(ParseError::Stray { kind: parts.kind, at: at + place, got, want: 0 })
        }
    }
}

fn number(parts: Parts<'_>, number: U32) -> Result<AskNumber, ParseError> {
    let number = NonZeroU32::new(number.get());
    number.map(AskNumber).ok_or_else(|| parts.field("number", 0_u32, "at least 1"))
}
