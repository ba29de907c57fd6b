//! From ready steps to running ones: slots, the lease of the key, and what another process makes meanwhile.
//! It does not know what a thread does with a step.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::decide::Decision;
use super::lengths::Lengths;
use super::slots::{Capacity, Grant, Need, Rank};
use super::stop::Stop;
use super::team::Team;
use super::work::Job;
use super::{Run, State, Threads, gate, priority};
use crate::error::Problem;
use crate::event::{Event, Say};
use crate::spec::Step;
use crate::step::Machine;
use crate::store::{Lease, Lookup};

/// How often to look whether another process has made what is waited for.
pub(super) const JOINED: Duration = Duration::from_millis(10);

/// What a step takes of a machine while it runs.
pub(super) fn need(step: &Step, machine: &Machine, capacity: &Capacity) -> Need {
    let on_gpu = machine.device.starts_with("cuda") && step.kind.needs_torch();
    let need = Need {
        cpu: step.policy.cpu.unwrap_or_else(|| Need::cpu_of(step.action.share(), capacity)),
        memory: step.policy.memory.unwrap_or_default(),
        gpus: step.policy.gpus.unwrap_or(usize::from(on_gpu && !capacity.gpus.is_empty())),
    };
    need.within(capacity)
}

impl<'a> Run<'a> {
    /// Lets a step run as soon as there are slots for it.
    pub(super) fn is_ready(&mut self, step: usize, decision: Arc<Decision>) {
        if let Some(problem) = self.asks_too_much(step) {
            return self.failed(step, problem);
        }
        self.states[step] = State::Ready(decision);
        self.unranked.push(step);
    }

    /// Says who of the ready goes first. Not before all that is here has been found: only how long the others took has
    /// to be looked up.
    fn rank(&mut self) {
        if self.unranked.is_empty() {
            return;
        }
        let (pipeline, graph, order, records) = (self.pipeline, &self.graph, &self.order, &self.records);
        let took = |step| records.get(&step).map(|record| record.costs.took_ms);
        let lengths = self.lengths.get_or_insert_with(|| Lengths::read(&self.decider, order, took));
        self.ways.get_or_insert_with(|| priority::ways(lengths, pipeline, graph, order));
        for step in std::mem::take(&mut self.unranked) {
            self.ready.insert(self.rank_of(step), step);
        }
    }

    /// When it is a step's turn; known once the first one is to start.
    pub(super) fn rank_of(&self, step: usize) -> Rank {
        let way = self.ways.as_ref().and_then(|ways| ways.get(&step)).copied();
        (Reverse(way.unwrap_or_default()), self.place[step])
    }

    pub(super) fn need(&self, step: usize) -> Need {
        need(&self.pipeline.steps[step], &self.options.machine, &self.options.capacity)
    }

    /// The figures of the steps that its expectations name.
    pub(super) fn others(&self, step: usize) -> BTreeMap<String, gate::Figures> {
        let figures = |(name, other): (&String, &usize)| Some((name.clone(), self.records.get(other)?.figures.clone()));
        self.pipeline.steps[step].after.iter().filter_map(figures).collect()
    }

    fn asks_too_much(&self, step: usize) -> Option<Problem> {
        let (need, there) = (self.need(step).gpus, self.options.capacity.gpus.len());
        (need > there).then(|| {
            Problem::new(format!("it needs {need} GPUs, and there are {there}"))
                .help("name those that it may use: `--gpus 0,1`")
        })
    }

    /// Why a step that is not there must not run either.
    pub(super) fn must_not_run(&self, step: usize) -> Option<Problem> {
        let only = self.options.choice.only.as_ref()?;
        (!only.contains(&step)).then(|| {
            Problem::new("its result is not in the cache, and only other steps are to run")
                .help("run without `--only`, or name this step, too")
        })
    }

    /// Starts ready steps as long as there are slots for them, and lets the next ones wait ahead.
    pub(super) fn start<'s>(&mut self, threads: &Threads<'s, '_>)
    where
        'a: 's,
    {
        self.rank();
        self.look_again();
        while !self.stopping() {
            let mut slots = self.slots.clone();
            let Some((rank, grant)) = slots.next(&self.ready, |step| self.need(step)) else { break };
            let Some(step) = self.ready.remove(&rank) else { break };
            let State::Ready(decision) = std::mem::replace(&mut self.states[step], State::Waiting) else { break };
            match self.store.lease(&decision.key) {
                Err(problem) => self.failed(step, problem),
                Ok(None) => self.is_joined(step, decision),
                Ok(Some(lease)) => {
                    let gpus = grant.gpus.clone();
                    let Some(job) = self.job(step, decision, gpus, lease) else { continue };
                    self.slots = slots;
                    let team = self.team(job);
                    self.begin(threads, team, grant);
                }
            }
        }
        self.look_ahead();
    }

    /// A step whose lease is ours, ready to run, if its result has not come in the meantime.
    pub(super) fn job(
        &mut self,
        step: usize,
        decision: Arc<Decision>,
        gpus: Vec<usize>,
        lease: Lease,
    ) -> Option<Job<'a>> {
        if !self.options.choice.forced.contains(&step)
            && let Lookup::Hit(record) = self.store.find(&decision.key)
        {
            self.reused(step, record);
            return None;
        }
        Some(self.prepared(step, decision, gpus, Some(lease)))
    }

    /// What is told when a step begins.
    pub(super) fn started(&self, step: usize, decision: &Decision) -> Event {
        let why = self.decider.why(step, decision);
        Event::StepStarted { step: self.id(step), key: decision.key.clone(), why }
    }

    /// All that a thread needs to run a step.
    pub(super) fn prepared(
        &self,
        step: usize,
        decision: Arc<Decision>,
        gpus: Vec<usize>,
        lease: Option<Lease>,
    ) -> Job<'a> {
        Job {
            step: &self.pipeline.steps[step],
            position: step,
            root: self.pipeline.root.clone(),
            inputs: self.decider.artifacts(step, &self.records),
            decision,
            outside: self.outside(step),
            fetched: self.fetched.get(&step).copied().unwrap_or_default(),
            store: self.store,
            options: self.options,
            gpus,
            stop: Arc::new(Stop::new(&self.options.cancel, self.pipeline.steps[step].policy.timeout)),
            crowd: self.crowd.clone(),
            others: self.others(step),
            heirs: self.heirs(step),
            lease,
        }
    }

    /// Lets a thread run steps that do their work together: in the slots of the first.
    fn begin<'s>(&mut self, threads: &Threads<'s, '_>, team: Team<'a>, grant: Grant)
    where
        'a: 's,
    {
        let steps: Arc<[usize]> = team.jobs.iter().map(|job| job.position).collect();
        let mut grant = Some(grant);
        for job in &team.jobs {
            if job.stop.has_limit() {
                self.timed.insert(job.position);
            }
            self.heirs.extend(job.heirs.map(|heirs| (job.position, heirs)));
            let grant = grant.take().unwrap_or_default();
            let (stop, team) = (job.stop.clone(), steps.clone());
            self.states[job.position] = State::Running { grant, stop, begun: Instant::now(), team };
        }
        let decisions: Vec<Arc<Decision>> = team.jobs.iter().map(|job| job.decision.clone()).collect();
        let ahead = self.ahead.clone();
        let started = self.spawn(threads, steps[0], move |to| team.work(to, &ahead));
        self.busy += steps.len() - usize::from(started.is_ok());
        // Why they run takes as long to find as a good part of a small step, so they run meanwhile; where nothing else
        // does, the thread may be waiting for this processor.
        if self.busy == steps.len() {
            std::thread::yield_now();
        }
        for (&step, decision) in steps.iter().zip(&decisions) {
            self.tell(self.started(step, decision));
        }
        if let [first, others @ ..] = &*steps
            && !others.is_empty()
        {
            let others: Vec<String> = others.iter().map(|&step| format!("`{}`", self.id(step))).collect();
            let text = format!("works together with {}", others.join(", "));
            self.tell(Event::StepSaid { step: self.id(*first), say: Say::Remark { text } });
        }
        if let Err(problem) = started {
            steps.iter().for_each(|&step| self.ended(step, Err(problem.clone()), None));
        }
    }

    /// What became of the steps that other processes are making.
    pub(super) fn look_at_joined(&mut self) {
        for step in self.joined.clone() {
            let State::Joined(decision) = &self.states[step] else { continue };
            match self.store.lease(&decision.key) {
                Ok(None) => continue,
                // Whoever gets the lease sees the record, if there is one.
                Ok(Some(_lease)) => {
                    self.joined.remove(&step);
                    match self.store.find(&decision.key) {
                        Lookup::Hit(record) => self.reused(step, record),
                        Lookup::Miss(_) => {
                            let state = std::mem::replace(&mut self.states[step], State::Waiting);
                            if let State::Joined(decision) = state {
                                self.is_ready(step, decision);
                            }
                        }
                    }
                }
                Err(problem) => {
                    self.joined.remove(&step);
                    self.failed(step, problem);
                }
            }
        }
    }
}
