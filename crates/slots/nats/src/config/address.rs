//! Addresses of brokers.

use std::str::FromStr;

use async_nats::ServerAddr;
use prism_core::config::Secret;

/// One broker's address, with the login taken out of it, so that it can be logged.
#[derive(Clone, PartialEq)]
pub(crate) struct Address {
    /// Scheme, host and port.
    pub(crate) text: String,
    /// User and password, if the address held them.
    pub(crate) login: Option<(String, Secret)>,
    /// Whether only an encrypted connection will do.
    pub(crate) encrypted: bool,
}

impl Address {
    /// Reads an address; without a scheme it is `nats://`, without a port 4222.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        // No error quotes the text: it may hold a password.
        let parsed = ServerAddr::from_str(text)
            .map_err(|_| "an address is no URL like `nats://host:4222` or `tls://host:4222`")?;
        if parsed.host().is_empty() {
            return Err("an address has no host; write it like `nats://host:4222`".to_owned());
        }
        let encrypted = match parsed.scheme() {
            "nats" => false,
            "tls" => true,
            other => {
                return Err(format!(
                    "an address begins with `{other}://`; use `nats://` or `tls://`"
                ));
            }
        };
        let (scheme, host, port) = (parsed.scheme(), parsed.host(), parsed.port());
        // An IPv6 address comes without its brackets.
        let host = if host.contains(':') {
            format!("[{host}]")
        } else {
            host.to_owned()
        };
        Ok(Self {
            text: format!("{scheme}://{host}:{port}"),
            login: login(&parsed)?,
            encrypted,
        })
    }

    /// The address for people, with `***` for a login.
    pub(crate) fn shown(text: &str) -> String {
        let one = |text| match Self::parse(text) {
            Ok(address) if address.login.is_some() => address.text.replacen("://", "://***@", 1),
            Ok(address) => address.text,
            Err(_) => "?".to_owned(),
        };
        text.split(',')
            .map(str::trim)
            .map(one)
            .collect::<Vec<_>>()
            .join(",")
    }
}

fn login(address: &ServerAddr) -> Result<Option<(String, Secret)>, String> {
    match (address.username(), address.password()) {
        (Some(user), Some(password)) => {
            let decode = |text| percent_decoded(text).ok_or("the login in an address is not percent-encoded");
            Ok(Some((decode(user)?, Secret::new(decode(password)?))))
        }
        (None, None) => Ok(None),
        _ => Err(
            "an address names a user without a password; use `username` and `password`, or `token`".into(),
        ),
    }
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_completed() {
        for (text, full, encrypted) in [
            ("localhost", "nats://localhost:4222", false),
            ("nats://h:1", "nats://h:1", false),
            ("tls://h", "tls://h:4222", true),
            ("[::1]:5", "nats://[::1]:5", false),
        ] {
            let address = Address::parse(text).unwrap();
            assert_eq!((&*address.text, address.encrypted), (full, encrypted));
            assert!(address.login.is_none());
        }
    }

    #[test]
    fn a_login_is_decoded_and_hidden() {
        let address = Address::parse("nats://al%40x:p%2Fw@h").unwrap();
        let (user, password) = address.login.unwrap();
        assert_eq!((&*user, password.expose()), ("al@x", "p/w"));
        assert_eq!(
            Address::shown("nats://u:p@h, b"),
            "nats://***@h:4222,nats://b:4222"
        );
    }
}
