//! The receipt of a run that ended well: what each step was decided with, and how the files concerned look.
//! It does not know who reads it.
//!
//! How something looks is kept only if it last changed well before the run began (`Stat::is_settled`): then it was read
//! as it is now. Of anything else the content alone is kept, and the next run looks at that.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::check::SMALL;
use super::{Asked, Found, basis};
use crate::digest::{Digest, bytes_of, files_below, shape};
use crate::exec::Run;
use crate::store::receipt::{KnownFile, KnownFolder, KnownOutput, KnownStep};
use crate::store::{Receipt, Record, Stat};

/// Files and folders by the numbers that they get in the new receipt.
#[derive(Default)]
struct Table {
    files: Vec<KnownFile>,
    folders: Vec<KnownFolder>,
    /// Numbers of the old receipt, or of what was gathered, to those here; of folders as well.
    old_files: BTreeMap<usize, usize>,
    old_folders: BTreeMap<usize, usize>,
    read: BTreeMap<usize, (Vec<usize>, Vec<usize>)>,
    paths: BTreeMap<String, usize>,
    shapes: BTreeMap<String, usize>,
}

impl Table {
    /// The number of a file; `None` if it was another one before, or its name cannot be written down.
    fn file(&mut self, path: &Path, digest: &Digest, stat: Option<Stat>) -> Option<usize> {
        let name = path.to_str()?;
        if let Some(&at) = self.paths.get(name) {
            return (self.files[at].digest == *digest).then_some(at);
        }
        self.paths.insert(name.to_owned(), self.files.len());
        self.files.push(KnownFile { path: path.to_owned(), digest: digest.clone(), stat });
        Some(self.files.len() - 1)
    }

    fn folder(&mut self, path: &Path, shape: &Digest) -> Option<usize> {
        let name = path.to_str()?;
        if let Some(&at) = self.shapes.get(name) {
            return (self.folders[at].shape == *shape).then_some(at);
        }
        self.shapes.insert(name.to_owned(), self.folders.len());
        self.folders.push(KnownFolder { path: path.to_owned(), shape: shape.clone() });
        Some(self.folders.len() - 1)
    }
}

impl Run<'_> {
    /// Keeps a receipt of this run, if it was asked for one and all that it relied on is certain.
    pub(in crate::exec) fn keep_receipt(&self) {
        let Some(recall) = &self.options.recall else { return };
        // One after the other: of thousands of steps each takes some room.
        recall.keep_compiled(self.store, self.pipeline);
        let Some(receipt) = self.receipt(&recall.asked) else { return };
        let same = |found: &Found| !found.better && found.receipt == receipt;
        if !recall.found.as_ref().is_some_and(same) {
            // Without it the next run takes longer, and that is all.
            let _ = self.store.keep_receipt(&recall.asked.name, &receipt);
        }
    }

    fn receipt(&self, asked: &Asked) -> Option<Receipt> {
        if !self.gathered.is_sound() {
            return None;
        }
        let old = self.known.as_ref().map(|known| &known.found.receipt);
        let mut variables: BTreeSet<String> = old.iter().flat_map(|old| old.variables.iter().cloned()).collect();
        let mut locked = old.is_some_and(|old| old.locked);
        let mut levels: BTreeMap<usize, usize> = BTreeMap::new();
        let mut table = Table::default();
        let mut steps = Vec::with_capacity(self.order.len());
        for &step in &self.order {
            let above = self.graph.producers(step).iter().filter_map(|producer| levels.get(producer)).max().copied();
            let level = above.map_or(0, |level| level + 1);
            levels.insert(step, level);
            let record = self.records.get(&step)?;
            steps.push(match self.taken(step) {
                Some(known) => self.again(known, step, &mut table)?,
                None => Arc::new({
                    let action = &self.pipeline.steps[step].action;
                    variables.extend(action.variables());
                    locked |= action.remote().is_some();
                    self.anew(step, level, record, &mut table)?
                }),
            });
        }
        let lock = if locked { Some(self.options.lock.agreed()?) } else { None };
        let variables: Vec<String> = variables.into_iter().collect();
        Some(Receipt {
            basis: basis::basis(&asked.text, &self.options.machine, &variables, lock.as_ref()),
            variables,
            locked,
            pipeline: self.pipeline.name.clone(),
            history: self.store.history_extent(&self.pipeline.name),
            files: table.files,
            folders: table.folders,
            steps,
        })
    }

    /// The step as the old receipt has it, if it was taken from there.
    fn taken(&self, step: usize) -> Option<&Arc<KnownStep>> {
        let known = self.known.as_ref()?;
        let at = *known.at.get(&step)?;
        known.hits[at].then(|| &known.found.receipt.steps[at])
    }

    /// A step of the old receipt; the numbers of its files may be other ones now.
    fn again(&self, step: &Arc<KnownStep>, position: usize, table: &mut Table) -> Option<Arc<KnownStep>> {
        let old = &self.known.as_ref()?.found.receipt;
        let file = |number: &usize| match table.old_files.get(number) {
            Some(&at) => Some(at),
            None => {
                let file = &old.files[*number];
                let at = table.file(&file.path, &file.digest, file.stat)?;
                Some(*table.old_files.entry(*number).or_insert(at))
            }
        };
        let files = step.files.iter().map(file).collect::<Option<Vec<usize>>>()?;
        let folder = |number: &usize| match table.old_folders.get(number) {
            Some(&at) => Some(at),
            None => {
                let folder = &old.folders[*number];
                let at = table.folder(&folder.path, &folder.shape)?;
                Some(*table.old_folders.entry(*number).or_insert(at))
            }
        };
        let folders = step.folders.iter().map(folder).collect::<Option<Vec<usize>>>()?;
        let linked = self.known.as_ref()?.linked(position);
        if linked && files == step.files && folders == step.folders {
            return Some(step.clone());
        }
        let mut new = KnownStep { files, folders, ..KnownStep::clone(step) };
        // A link that was made anew just now does not look as it did.
        if !linked {
            new.outputs.iter_mut().for_each(|output| output.link = None);
        }
        Some(Arc::new(new))
    }

    /// A step that was decided in this run.
    fn anew(&self, position: usize, level: usize, record: &Record, table: &mut Table) -> Option<KnownStep> {
        let step = &self.pipeline.steps[position];
        let settled = |stat: &Stat| stat.is_settled(self.began);
        let output = |product: &crate::step::Product| {
            let object = record.outputs.get(product.name.as_ref())?.clone();
            let (name, file) = (product.name.to_string(), product.file.to_string());
            let place = self.store.published(&self.pipeline.name, &step.id, &file);
            let link = if self.ran.contains(&position) { None } else { Stat::of_link(&place).filter(settled) };
            Some(KnownOutput { name, file, object, link })
        };
        let (files, folders) = self.read_by(position, table)?;
        // Collecting options makes room for four.
        let mut outputs = Vec::with_capacity(step.outputs.len());
        for product in &step.outputs {
            outputs.push(output(product)?);
        }
        Some(KnownStep {
            id: step.id.clone(),
            position,
            level,
            wanted: self.is_wanted(position),
            key: record.key.clone(),
            seal: record.checksum.clone(),
            record: match self.ran.contains(&position) {
                true => None,
                false => self.store.record_looks(&record.key).filter(settled),
            },
            outputs,
            figures: record.figures.clone(),
            said: record.said.clone(),
            costs: record.costs,
            run: record.run.as_str().into(),
            step: (record.step != step.id).then(|| record.step.clone()),
            files,
            folders,
        })
    }

    /// What a step read, and the places that decided what that was.
    fn read_by(&self, position: usize, table: &mut Table) -> Option<(Vec<usize>, Vec<usize>)> {
        let (mut files, mut folders) = (Vec::new(), Vec::new());
        let action = &self.pipeline.steps[position].action;
        let looked_at = action.looked_at(&self.pipeline.root);
        if !looked_at.is_empty() {
            // Between the reading and now an entry may have come or gone.
            let shapes = || looked_at.iter().map(|path| shape(path)).collect::<Option<Vec<Digest>>>();
            let before = shapes()?;
            let now = action.sources(&self.pipeline.root);
            let then = self.gathered.of(position).iter().map(|&number| self.gathered.file(number).0);
            if !then.eq(now.iter().map(|source| source.path.as_path())) || shapes()? != before {
                return None;
            }
            for (path, shape) in looked_at.iter().zip(&before) {
                folders.push(table.folder(path, shape)?);
            }
        }
        for number in self.gathered.of(position) {
            if !table.read.contains_key(number) {
                let (path, digest) = self.gathered.file(*number);
                let entry = self.content(path, digest, table)?;
                table.read.insert(*number, entry);
            }
            let (below, shapes) = &table.read[number];
            files.extend(below);
            folders.extend(shapes);
        }
        Some((files, folders))
    }

    /// A file; or a folder, as its shape and the files in it.
    fn content(&self, path: &Path, digest: &Digest, table: &mut Table) -> Option<(Vec<usize>, Vec<usize>)> {
        let settled = |path: &Path, digest: &Digest| {
            self.store.last_known(path).filter(|(_, known)| known == digest).map(|(stat, _)| stat)
        };
        if !path.is_dir() {
            return Some((vec![table.file(path, digest, settled(path, digest))?], Vec::new()));
        }
        let shape = shape(path)?;
        let names = files_below(path).ok()?;
        let paths: Vec<PathBuf> = names.iter().map(|name| path.join(name)).collect();
        // Of a folder one digest is known; those of its files, as far as they are remembered.
        let unread = paths.iter().filter(|path| self.store.last_known(path).is_none());
        let bytes = unread.filter_map(|path| bytes_of(path).ok()).fold(0, u64::saturating_add);
        if bytes > SMALL {
            return None;
        }
        let digests = self.store.digests(&paths, &mut |_| Ok(())).ok()?;
        if Digest::of_listing(&names, &digests) != *digest {
            return None;
        }
        let file = |(path, digest): (&PathBuf, &Digest)| table.file(path, digest, settled(path, digest));
        let files = paths.iter().zip(&digests).map(file).collect::<Option<Vec<usize>>>()?;
        Some((files, vec![table.folder(path, &shape)?]))
    }
}
