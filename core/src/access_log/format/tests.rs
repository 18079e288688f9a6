//! Which operators are understood, and which are not.

use super::*;
use serde_json::json;

fn parse(text: &str) -> Result<(Vec<Piece>, Wants), String> {
    let mut wants = Wants::default();
    let around = Surroundings {
        hostname: "vm",
        chain: Some(""),
        variable: &|name| (name == "HOME").then(|| "/root".into()),
    };
    let mut reader = Reader { wants: &mut wants, around: &around };
    reader.template(text).map(|Template(pieces)| (pieces, wants))
}

#[test]
fn envoys_default_format_is_understood() {
    let (pieces, wants) = parse(LogFormat::DEFAULT).unwrap();
    assert_eq!((wants.request.len(), wants.response.len()), (6, 1));
    assert_eq!(pieces.first(), Some(&Piece::Literal("[".into())));
    assert_eq!(pieces.last(), Some(&Piece::Literal("\"\n".into())));
}

#[test]
fn operators_become_values() {
    let value = |value| vec![Piece::Value(value, None)];
    let table = [
        ("%RESPONSE_CODE%", value(Value::Number(Number::ResponseCode))),
        ("%ENVIRONMENT(HOME):2%", vec![Piece::Value(Value::Fixed("/root".into()), Some(2))]),
        ("%START_TIME(%s)%", value(Value::Start(TimeFormat::parse("%s", false).unwrap()))),
        ("%DYNAMIC_METADATA(a:b)%", value(Value::Nothing)),
        ("%HOSTNAME%", value(Value::Fixed("vm".into()))),
        ("%ENVIRONMENT(HOME)%", value(Value::Fixed("/root".into()))),
        ("%ENVIRONMENT(NONE)%", value(Value::Fixed("-".into()))),
        ("%UPSTREAM_HOST%", value(Value::Address(Whose::Host, Part::Whole))),
        (
            "%UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT(8)%",
            value(Value::Address(Whose::UpstreamLocal, Part::Masked(8))),
        ),
        ("%DOWNSTREAM_PEER_DNS_SAN%", value(Value::Nothing)),
        (
            "%UPSTREAM_DECOMPRESSED_HEADER_BYTES_SENT%",
            value(Value::Number(Number::Traffic(Leg::ToUpstream, Bytes::HeadersDecompressed))),
        ),
        ("%PATH(NQ)%", value(Value::WithoutQuery(0))),
        (
            "%COMMON_DURATION(DS_RX_BEG:mine:us)%",
            value(Value::Elapsed(Point::DsRxBeg, Point::Never, Unit::Micro)),
        ),
        (
            "%COALESCE({\"operators\": [\"ROUTE_NAME\", {\"command\": \"REQ\", \"param\": \"a\"}]})%",
            value(Value::First(vec![(Value::Text(Text::Route), None), (Value::Request(0), None)])),
        ),
        ("50%%", vec![Piece::Literal("50%".into())]),
    ];
    for (text, pieces) in table {
        assert_eq!(parse(text).unwrap().0, pieces, "{text}");
    }
}

#[test]
fn a_field_is_wanted_once() {
    let (pieces, wants) = parse("%REQ(A)%%REQ(B)%%REQ(A)%%RESP(A)%").unwrap();
    assert_eq!((wants.request.len(), wants.response.len()), (2, 1));
    assert_eq!(pieces[0], pieces[2]);
}

#[test]
fn what_is_not_understood_is_refused() {
    for (text, part) in [
        ("%NO_SUCH%", "%NO_SUCH% is not implemented"),
        ("%TRAILER()%", "not the name of a header"),
        ("%RESPONSE_FLAGS:1%", "takes no length"),
        ("%PATH(x)%", "neither WQ nor NQ"),
        ("%METADATA(LISTENER:a)%", "not implemented"),
        ("%METADATA(NOBODY:a)%", "has no metadata"),
        ("%COMMON_DURATION(a:b:m)%", "not ms, us or ns"),
        ("%UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT(129)%", "length of a prefix"),
        ("%COALESCE({})%", "a list of operators"),
        ("%QUERY_PARAM%", "needs the name"),
        ("50%", "written %%"),
        ("%REQ()%", "not the name of a header"),
        ("%START_TIME(%Q)%", "%Q"),
        ("%DURATION(x)%", "takes no argument"),
    ] {
        let error = parse(text).unwrap_err();
        assert!(error.contains(part), "{text}: {error}");
    }
    let shape = LogShape::Json(json!({"a": {"b": "%NO%"}}).as_object().unwrap().clone());
    let around = Surroundings { hostname: "", chain: Some(""), variable: &|_| None };
    let format = LogFormat { shape, omit_empty_values: false };
    let error = Line::parse(&format, &mut Wants::default(), &around).unwrap_err();
    assert!(error.starts_with("a: b: "), "{error}");
}
