//! A long-lived Ed25519 key in a file, and everything that is made from it.
//!
//! The file is PKCS#8 in PEM, mode 0600, in a folder of mode 0700. It appears at once and whole: of two starters that
//! make it at the same time one wins, and both then read the winner's. It is never overwritten.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use data_encoding::BASE64;
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;

use crate::id::PublicKey;

/// What stands before the 32 secret bytes of an Ed25519 key in PKCS#8, version 1 (RFC 8410).
const PKCS8_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
/// Bytes of a key file that are read: no key is longer.
const FILE_BYTES_MAX: u64 = 16 << 10;
const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// An identity that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// There is no key file.
    #[error("there is no key at {path}")]
    Missing {
        /// Where.
        path: PathBuf,
    },
    /// The file or its folder cannot be read or written.
    #[error("cannot use the key file {path}: {source}; check who owns it, and its folder")]
    File {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others may read the file.
    #[error("the key file {path} has mode {mode:03o}, so that others may know the key; run: chmod 600 {path}")]
    Open {
        /// Where.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The file holds no Ed25519 key.
    #[error(
        "{path} holds no Ed25519 key in PKCS#8 PEM ({why}); restore it from a copy, or move it away to get a new identity"
    )]
    Content {
        /// Where.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The operating system gives no randomness, or the key cannot sign.
    #[error("cannot make a key or certificate: {0}")]
    Crypto(String),
}

/// A private key of a person or a process. Clones share it.
#[derive(Clone)]
pub struct Identity(Arc<Inner>);

struct Inner {
    seed: [u8; 32],
    pair: Ed25519KeyPair,
    public: PublicKey,
    /// Made once in a process's life.
    certified: OnceLock<Arc<CertifiedKey>>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({:?})", self.0.public)
    }
}

impl Identity {
    /// Reads the key file, or makes one.
    pub fn load_or_make(path: &Path) -> Result<Self, IdentityError> {
        match Self::load(path) {
            Err(IdentityError::Missing { .. }) => {}
            loaded => return loaded,
        }
        Self::generate()?.store(path)?;
        Self::load(path)
    }

    /// Reads the key file.
    pub fn load(path: &Path) -> Result<Self, IdentityError> {
        let failed = |source: io::Error| {
            let path = path.to_owned();
            if source.kind() == io::ErrorKind::NotFound {
                IdentityError::Missing { path }
            } else {
                IdentityError::File { path, source }
            }
        };
        let content = |why: String| IdentityError::Content { path: path.to_owned(), why };
        let meta = fs::metadata(path).map_err(failed)?;
        if !meta.is_file() || meta.len() > FILE_BYTES_MAX {
            return Err(content("not a file, or too long".to_owned()));
        }
        let mode = meta.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(IdentityError::Open { path: path.to_owned(), mode });
        }
        let bytes = fs::read(path).map_err(failed)?;
        let der = PrivatePkcs8KeyDer::from_pem_slice(&bytes).map_err(|error| content(error.to_string()))?;
        Self::from_pkcs8(der.secret_pkcs8_der()).map_err(content)
    }

    /// A key that is in no file: for tests, load generators, and as the first step of [`Self::load_or_make`].
    pub fn generate() -> Result<Self, IdentityError> {
        let mut seed = [0; 32];
        SystemRandom::new().fill(&mut seed).map_err(|_| IdentityError::Crypto("no randomness".to_owned()))?;
        Self::from_seed(seed).map_err(IdentityError::Crypto)
    }

    fn from_pkcs8(der: &[u8]) -> Result<Self, String> {
        let whole = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).map_err(|error| error.to_string())?;
        // Both versions of PKCS#8 keep the secret bytes at the same place.
        let seed: [u8; 32] = der.get(16..48).and_then(|seed| seed.try_into().ok()).ok_or("too short")?;
        let identity = Self::from_seed(seed)?;
        if whole.public_key().as_ref() == identity.0.public.0 {
            Ok(identity)
        } else {
            Err("an unknown form".to_owned())
        }
    }

    fn from_seed(seed: [u8; 32]) -> Result<Self, String> {
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|error| error.to_string())?;
        let mut public = [0; 32];
        public.copy_from_slice(pair.public_key().as_ref());
        Ok(Self(Arc::new(Inner { seed, pair, public: PublicKey(public), certified: OnceLock::new() })))
    }

    /// Writes the key file unless one stands there already; then that one counts.
    fn store(&self, path: &Path) -> Result<(), IdentityError> {
        let pem = self.to_pem();
        write_new(path, pem.as_bytes(), FILE_MODE, FOLDER_MODE)
            .map(|_| ())
            .map_err(|source| IdentityError::File { path: path.to_owned(), source })
    }

    fn to_pem(&self) -> String {
        // 48 bytes make 64 characters: one line.
        format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", BASE64.encode(&self.pkcs8()))
    }

    fn pkcs8(&self) -> Vec<u8> {
        [&PKCS8_PREFIX[..], &self.0.seed[..]].concat()
    }

    /// What others know this identity by.
    pub fn public_key(&self) -> PublicKey {
        self.0.public
    }

    /// Signs; see [`is_signature`].
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        let mut signature = [0; 64];
        signature.copy_from_slice(self.0.pair.sign(message).as_ref());
        signature
    }

    /// A secret for one purpose, the same at every start.
    pub fn derive(&self, label: &str) -> [u8; 32] {
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &self.0.seed);
        let mut secret = [0; 32];
        secret.copy_from_slice(ring::hmac::sign(&key, format!("gaggle {label}").as_bytes()).as_ref());
        secret
    }

    /// A fresh self-signed certificate of this key.
    pub fn make_certificate(&self) -> Result<CertificateDer<'static>, IdentityError> {
        let params = rcgen::CertificateParams::new(vec![crate::net::tls::SERVER_NAME.to_owned()]);
        let made = params.and_then(|params| params.self_signed(&Signer(self)));
        Ok(made.map_err(|error| IdentityError::Crypto(error.to_string()))?.der().clone())
    }

    /// The certificate of this start and its key, as TLS wants them.
    pub(crate) fn certified(&self) -> Result<Arc<CertifiedKey>, IdentityError> {
        if let Some(certified) = self.0.certified.get() {
            return Ok(Arc::clone(certified));
        }
        let certified = Arc::new(CertifiedKey::new(vec![self.make_certificate()?], self.tls_key()?));
        Ok(Arc::clone(self.0.certified.get_or_init(|| certified)))
    }

    /// The key alone, as TLS wants it.
    pub(crate) fn tls_key(&self) -> Result<Arc<dyn rustls::sign::SigningKey>, IdentityError> {
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.pkcs8()));
        rustls::crypto::ring::sign::any_supported_type(&der).map_err(|error| IdentityError::Crypto(error.to_string()))
    }
}

/// Whether this key signed this message.
pub fn is_signature(key: &PublicKey, message: &[u8], signature: &[u8]) -> bool {
    UnparsedPublicKey::new(&ED25519, key.0).verify(message, signature).is_ok()
}

/// Lets rcgen sign without a copy of the key in its own form.
struct Signer<'a>(&'a Identity);

impl rcgen::PublicKeyData for Signer<'_> {
    fn der_bytes(&self) -> &[u8] {
        &self.0.0.public.0
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ED25519
    }
}

impl rcgen::SigningKey for Signer<'_> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Ok(self.0.sign(message).to_vec())
    }
}

/// Whether [`write_new`] made the file or found one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wrote {
    /// It is ours.
    Made,
    /// Another stood there, and still does.
    Stood,
}

/// Makes a file that appears whole or not at all, and never replaces one: written and synced under another name, then
/// linked to its own, which fails if that name is taken.
pub(crate) fn write_new(path: &Path, bytes: &[u8], file_mode: u32, folder_mode: u32) -> io::Result<Wrote> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    if !folder.is_dir() {
        // Only the last folder is private; the ones above it are for everybody who may be there.
        folder.parent().map_or(Ok(()), fs::create_dir_all)?;
        fs::DirBuilder::new().recursive(true).mode(folder_mode).create(folder)?;
    }
    let mut random = [0; 8];
    SystemRandom::new().fill(&mut random).map_err(|_| io::Error::other("no randomness"))?;
    let draft = folder.join(format!(".new-{:016x}", u64::from_be_bytes(random)));
    let made = write_draft(&draft, bytes, file_mode).and_then(|()| match fs::hard_link(&draft, path) {
        Ok(()) => Ok(Wrote::Made),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(Wrote::Stood),
        Err(error) => Err(error),
    });
    // The draft goes in every case; if even that fails, a hidden file stays and harms nothing.
    let _ = fs::remove_file(&draft);
    let made = made?;
    fs::File::open(folder)?.sync_all()?;
    Ok(made)
}

fn write_draft(draft: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(draft)?;
    file.write_all(bytes)?;
    file.sync_all()
}
