//! SCRAM-SHA-256 as the tests need it: the client's half for raw connections, and the secret in
//! PostgreSQL's form for a gateway's configuration. Written apart from the product's own code, so
//! that one checks the other.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

/// `SCRAM-SHA-256$4096:<salt>$<stored key>:<server key>`.
pub fn secret(password: &str) -> String {
    let mut salt = [0u8; 16];
    getrandom::fill(&mut salt).unwrap();
    let salted = salted_password(password, &salt, ITERATIONS);
    let stored = Sha256::digest(hmac(&salted, b"Client Key"));
    let server = hmac(&salted, b"Server Key");
    let (salt, stored, server) = (STANDARD.encode(salt), STANDARD.encode(stored), STANDARD.encode(server));
    format!("SCRAM-SHA-256${ITERATIONS}:{salt}${stored}:{server}")
}

/// The client's side of one exchange.
#[derive(Debug)]
pub struct Exchange {
    password: String,
    first_bare: String,
    auth_message: String,
    salted: [u8; 32],
}

impl Exchange {
    /// Begins without channel binding.
    pub fn new(password: &str) -> Exchange {
        let mut nonce = [0u8; 18];
        getrandom::fill(&mut nonce).unwrap();
        let first_bare = format!("n=,r={}", STANDARD.encode(nonce));
        Exchange { password: password.to_owned(), first_bare, auth_message: String::new(), salted: [0; 32] }
    }

    /// The client's first message.
    pub fn first(&self) -> String {
        format!("n,,{}", self.first_bare)
    }

    /// The client's answer to the server's first message.
    pub fn answer(&mut self, server_first: &str) -> String {
        let attribute = |name: char| {
            let found = server_first.split(',').find_map(|a| a.strip_prefix(name)?.strip_prefix('='));
            found.unwrap_or_else(|| panic!("no {name}= in {server_first}"))
        };
        let salt = STANDARD.decode(attribute('s')).unwrap();
        self.salted = salted_password(&self.password, &salt, attribute('i').parse().unwrap());
        let without_proof = format!("c=biws,r={}", attribute('r'));
        self.auth_message = format!("{},{server_first},{without_proof}", self.first_bare);
        let client_key = hmac(&self.salted, b"Client Key");
        let signature = hmac(&Sha256::digest(client_key), self.auth_message.as_bytes());
        let proof: Vec<u8> = client_key.iter().zip(signature).map(|(k, s)| k ^ s).collect();
        format!("{without_proof},p={}", STANDARD.encode(proof))
    }

    /// Panics if the server did not prove that it knows the password too.
    pub fn check(&self, server_final: &str) {
        let key = hmac(&self.salted, b"Server Key");
        let signature = STANDARD.encode(hmac(&key, self.auth_message.as_bytes()));
        assert_eq!(server_final, format!("v={signature}"), "the server's signature");
    }
}

fn salted_password(password: &str, salt: &[u8], iterations: u32) -> [u8; 32] {
    let mut block = hmac(password.as_bytes(), &[salt, &1u32.to_be_bytes()].concat());
    let mut sum = block;
    for _ in 1..iterations {
        block = hmac(password.as_bytes(), &block);
        sum.iter_mut().zip(block).for_each(|(s, b)| *s ^= b);
    }
    sum
}

fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(message);
    mac.finalize().into_bytes().into()
}

const ITERATIONS: u32 = 4096;
