//! What every verb needs first: which cluster, which ways in, which person.

use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;

use crate::cli::args::Global;
use crate::cli::failure::{Failure, Kind};
use crate::cli::output::Out;
use crate::cli::profile::{EntranceRow, Profile, Profiles};
use crate::client::{CertBook, Identity};
use crate::id::{HostId, PublicKey, UserName};
use crate::topology::{ProcessSpec, Topology};

/// Used when nothing else is said and it is there.
const DEFAULT_TOPOLOGY: &str = "topology/lenss.toml";

/// The command's surroundings.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    /// The flags of all verbs.
    pub(crate) global: Global,
    /// How this command speaks.
    pub(crate) out: Out,
    /// The profiles of this machine.
    pub(crate) profiles: Profiles,
}

/// A topology file that was read.
#[derive(Debug, Clone)]
pub(crate) struct Loaded {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// What it says.
    pub(crate) topology: Topology,
}

impl Loaded {
    /// Reads and checks a file.
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            Failure::usage(format!("{}: {error}", path.display())).hint("name a topology file: --topology FILE")
        })?;
        let name = path.file_name().map_or_else(|| path.to_string_lossy(), |name| name.to_string_lossy());
        let topology = Topology::parse(&text, &name).map_err(|error| {
            Failure::usage(error.to_string()).hint(format!(
                "correct {}, then try: gaggle config check {}",
                path.display(),
                path.display()
            ))
        })?;
        Ok(Self { path: path.to_owned(), topology })
    }

    /// The folder that the file's own folders are relative to.
    pub(crate) fn base(&self) -> PathBuf {
        match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            Some(_) | None => PathBuf::from("."),
        }
    }

    /// Where the public identities are.
    pub(crate) fn certs(&self) -> PathBuf {
        self.base().join(&self.topology.certs)
    }

    /// The ways in whose keys are known by now.
    pub(crate) fn entrances(&self) -> Result<Vec<EntranceRow>, Failure> {
        let book = CertBook::load(&self.certs()).map_err(|error| Failure::identity(error.to_string()))?;
        let row = |process: &ProcessSpec| {
            let key = book.key(process.id)?;
            Some(EntranceRow {
                id: process.id,
                host: process.host,
                addr: process.addr,
                role: process.role,
                key: HEXLOWER.encode(&key.0),
            })
        };
        Ok(self.topology.processes().filter_map(row).collect())
    }
}

/// A cluster and the ways into it.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// The cluster's name.
    pub(crate) cluster: String,
    /// The file that says so; none if only the profile does.
    pub(crate) loaded: Option<Loaded>,
    /// The ways in; never empty.
    pub(crate) entrances: Vec<EntranceRow>,
}

impl EntranceRow {
    /// The key.
    pub(crate) fn public_key(&self) -> Option<PublicKey> {
        let bytes = HEXLOWER.decode(self.key.as_bytes()).ok()?;
        Some(PublicKey(bytes.try_into().ok()?))
    }
}

impl Context {
    /// The topology file, for verbs that need the file itself.
    pub(crate) fn topology(&self) -> Result<Loaded, Failure> {
        if let Some(path) = &self.global.topology {
            return Loaded::read(path);
        }
        let of_profile = self.profile_if_any()?.and_then(|profile| profile.file.topology);
        if let Some(path) = of_profile.filter(|path| path.exists()) {
            return Loaded::read(&path);
        }
        if Path::new(DEFAULT_TOPOLOGY).exists() {
            return Loaded::read(Path::new(DEFAULT_TOPOLOGY));
        }
        Err(Failure::usage(format!("no topology file: {DEFAULT_TOPOLOGY} is not there, and none was named"))
            .hint("name one: --topology FILE, or GAGGLE_TOPOLOGY"))
    }

    /// The cluster that a verb without a profile talks to.
    pub(crate) fn place(&self) -> Result<Place, Failure> {
        match self.profile_if_any()? {
            Some(profile) => self.place_of(&profile),
            None => Self::place_of_file(self.topology()?),
        }
    }

    /// The cluster that this profile talks to. The file is newer than what the profile remembers, if it is still there.
    pub(crate) fn place_of(&self, profile: &Profile) -> Result<Place, Failure> {
        let remembered = profile.file.entrances.clone();
        let loaded = match (&self.global.topology, &profile.file.topology) {
            (Some(path), _) => Some(Loaded::read(path)?),
            (None, Some(path)) => Loaded::read(path).ok(),
            (None, None) => None,
        };
        let Some(loaded) = loaded else {
            if remembered.is_empty() {
                return Self::place_of_file(self.topology()?);
            }
            return Ok(Place { cluster: profile.file.cluster.clone(), loaded: None, entrances: remembered });
        };
        if loaded.topology.cluster != profile.file.cluster {
            if self.global.topology.is_none() {
                return Ok(Place { cluster: profile.file.cluster.clone(), loaded: None, entrances: remembered });
            }
            return Err(Failure::usage(format!(
                "the profile {} belongs to the cluster {}, and {} names {}",
                profile.file.name,
                profile.file.cluster,
                loaded.path.display(),
                loaded.topology.cluster
            ))
            .hint("use another profile (--as NAME), or another folder of profiles (GAGGLE_HOME)"));
        }
        match Self::place_of_file(loaded) {
            Err(failure) if failure.kind == Kind::Unreachable && !remembered.is_empty() => {
                Ok(Place { cluster: profile.file.cluster.clone(), loaded: None, entrances: remembered })
            }
            place => place,
        }
    }

    /// The cluster of a topology file.
    pub(crate) fn place_of_file(loaded: Loaded) -> Result<Place, Failure> {
        let entrances = loaded.entrances()?;
        if entrances.is_empty() {
            let certs = loaded.certs();
            return Err(Failure::new(
                Kind::Unreachable,
                format!("no process of {} has its public identity in {}", loaded.topology.cluster, certs.display()),
            )
            .hint(format!("start the cluster (gaggle up --topology {}), or copy *.pub there", loaded.path.display())));
        }
        Ok(Place { cluster: loaded.topology.cluster.clone(), loaded: Some(loaded), entrances })
    }

    /// The profile of `--as`, or the current one, if there is one.
    fn profile_if_any(&self) -> Result<Option<Profile>, Failure> {
        match &self.global.profile {
            Some(name) => self.profile_named(name).map(Some),
            None => match self.profiles.current()? {
                Some(name) => self.profiles.find(&name),
                None => Ok(None),
            },
        }
    }

    fn profile_named(&self, name: &UserName) -> Result<Profile, Failure> {
        self.profiles.find(name)?.ok_or_else(|| {
            Failure::usage(format!("there is no profile {name} on this machine")).hint(format!("gaggle login {name}"))
        })
    }

    /// The profile that this command speaks for.
    pub(crate) fn profile(&self) -> Result<Profile, Failure> {
        self.profile_if_any()?
            .ok_or_else(|| Failure::usage("nobody is logged in on this machine").hint("gaggle login NAME"))
    }

    /// The profile's key.
    pub(crate) fn identity(profile: &Profile) -> Result<Identity, Failure> {
        Identity::load(&profile.key_path()).map_err(|error| Failure::identity(error.to_string()))
    }

    /// Whether the host of `--via` is one of the place's.
    pub(crate) fn via(&self, place: &Place) -> Result<Option<HostId>, Failure> {
        let Some(via) = self.global.via else { return Ok(None) };
        let in_file = place.loaded.as_ref().is_some_and(|loaded| loaded.topology.host(via).is_some());
        if in_file || place.entrances.iter().any(|entrance| entrance.host == via) {
            return Ok(Some(via));
        }
        Err(Failure::usage(format!("the cluster {} has no host {via}", place.cluster))
            .hint("`gaggle status` shows the hosts"))
    }
}
