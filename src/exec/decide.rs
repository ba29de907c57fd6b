//! Whether a step must run: its manifest, made from the digests of its inputs, and what the store has under it.
//! It does not know about threads and slots.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Records;
use super::sources::Sources;
use crate::digest::Digest;
use crate::error::{Problem, Result};
use crate::key::{self, Entry, Manifest, Name, Port};
use crate::lockfile::Lockfile;
use crate::spec::{Edge, Pipeline, Policy, Step};
use crate::step::{Artifact, Input, Machine};
use crate::store::{Lookup, Store};

/// All that a decision needs besides the records of the producers.
pub struct Decider<'a> {
    /// The pipeline.
    pub pipeline: &'a Pipeline,
    /// The cache.
    pub store: &'a Store,
    /// The machine.
    pub machine: &'a Machine,
    /// What remote sources are.
    pub lock: &'a Lockfile,
}

/// A step whose inputs are known.
#[derive(Clone)]
pub struct Decision {
    /// The manifest as a readable document.
    pub manifest: Value,
    /// Its hash.
    pub key: Digest,
    /// The sources as they were when the manifest was made.
    pub sources: Sources,
    /// What the store has under the key.
    pub found: Lookup,
}

impl Decision {
    /// What the step's states on the way are found by.
    pub fn series(&self, policy: &Policy) -> Digest {
        policy.extends.as_ref().map_or_else(|| self.key.clone(), |length| key::series_of(&self.manifest, length))
    }

    /// The step of the work that an earlier run got to, as far as can be told without reading its state.
    pub fn resumes(&self, store: &Store, policy: &Policy) -> Option<u64> {
        let length = policy.extends.as_ref().map(|length| self.manifest["params"][length].as_u64().unwrap_or(0));
        store.furthest(&self.series(policy), length.unwrap_or(u64::MAX))
    }
}

impl Decider<'_> {
    /// The address of the step's remote source, as long as nobody has said what it is: its key is not known before.
    pub fn unfetched(&self, position: usize) -> Option<String> {
        let address = self.pipeline.steps[position].action.remote()?;
        self.lock.get(&address).is_none().then_some(address)
    }

    /// Decides one step; all its producers have records, and its sources have been read.
    pub fn decide(&self, position: usize, records: &Records, sources: Sources) -> Result<Decision> {
        let step = &self.pipeline.steps[position];
        let mut digests: BTreeMap<String, Digest> =
            sources.iter().map(|(source, digest)| (source.name.clone(), digest.clone())).collect();
        if let Some(address) = step.action.remote() {
            let locked = self.lock.get(&address);
            let locked = locked.ok_or_else(|| Problem::new(format!("{address} has not been fetched yet")))?;
            digests.insert("source".to_owned(), locked.digest);
        }
        let mut environment = step.action.environment(self.machine);
        if !self.machine.precisions.is_empty() {
            environment.extend(step.action.decided(&self.artifacts(position, records), self.machine));
        }
        let manifest = Manifest {
            kind: step.kind.name().to_owned(),
            version: step.kind.version(),
            params: step.action.keyed(),
            inputs: self.ports(step, records)?,
            sources: digests,
            environment,
        };
        let manifest = manifest.document();
        let key = key::key_of(&manifest);
        let found = self.store.find(&key);
        Ok(Decision { manifest, key, sources, found })
    }

    fn ports(&self, step: &Step, records: &Records) -> Result<BTreeMap<String, Port>> {
        let mut ports = BTreeMap::new();
        for (name, edges) in step.inputs.iter() {
            let Some(input) = Input::find(step.kind.inputs(), name) else { continue };
            let listed = edges.iter().any(|edge| edge.listed);
            let entry = |edge: &Edge| {
                let producer = &self.pipeline.steps[edge.step];
                let name = Name { id: producer.id.clone(), coordinates: producer.coordinates.clone() };
                let digest = self.digest(records, edge)?;
                Ok(Entry { digest, name: input.names(listed).then_some(name) })
            };
            let mut entries = edges.iter().map(entry).collect::<Result<Vec<_>>>()?;
            let port = match input.is_list(listed) {
                true => Port::Many(entries),
                false => match entries.pop() {
                    Some(entry) => Port::One(entry),
                    None => continue,
                },
            };
            ports.insert(name.clone(), port);
        }
        Ok(ports)
    }

    /// What the step gets to see of its inputs.
    pub fn artifacts(&self, position: usize, records: &Records) -> BTreeMap<String, Vec<Artifact>> {
        let artifact = |edge: &Edge| {
            let producer = &self.pipeline.steps[edge.step];
            let digest = self.digest(records, edge).ok()?;
            Some(Artifact {
                name: producer.id.clone(),
                coordinates: producer.coordinates.clone(),
                listed: edge.listed,
                origin: producer.action.origin(),
                path: self.store.object(&digest),
                digest,
            })
        };
        let inputs = &self.pipeline.steps[position].inputs;
        inputs.iter().map(|(port, edges)| (port.clone(), edges.iter().filter_map(artifact).collect())).collect()
    }

    fn digest(&self, records: &Records, edge: &Edge) -> Result<Digest> {
        let name = self.pipeline.output(edge).name.as_ref();
        let object = records.get(&edge.step).and_then(|record| record.outputs.get(name));
        object.map(|object| object.digest.clone()).ok_or_else(|| {
            // Only a kind whose outputs changed without a new version can come here.
            Problem::new(format!("the recorded result that it reads has no output `{name}`"))
                .help("delete the cache folder, or raise the version of the step kind")
        })
    }
}
