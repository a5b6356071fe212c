//! The contents of a runtime's slots: admission within the budget, results of the loader, and eviction.

use super::{Runtime, Slot, TaskId};
use crate::loader::{Done, Job, Loader};
use crate::{Error, Result, Task};
use std::path::Path;
use std::sync::Arc;

impl Runtime {
    /// Runs `load` and counts it if it fails.
    pub(super) fn counted<T>(&mut self, load: impl FnOnce(&mut Runtime) -> Result<T>) -> Result<T> {
        let outcome = load(self);
        self.stats.failed_loads += u64::from(outcome.is_err());
        outcome
    }

    pub(super) fn loader(&mut self) -> Result<&Loader> {
        let loader = match self.loader.take() {
            Some(loader) => loader,
            None => {
                self.room.note(&self.session.cpu.space);
                let (backbone, room) = (Arc::clone(&self.backbone), Arc::clone(&self.room));
                Loader::start(backbone, self.session.threads(), room)?
            }
        };
        Ok(self.loader.insert(loader))
    }

    pub(super) fn collect(&mut self) {
        while let Some(done) = self.loader.as_ref().and_then(Loader::finished) {
            self.take_in(done);
        }
    }

    /// Takes in one result of the loader.
    pub(super) fn take_in(&mut self, done: Done) {
        if let Ok(loaded) = &done.outcome {
            self.room.taken_in(&loaded.task);
        }
        self.place(done);
        self.tell();
    }

    /// Tells the loader how much room there is, which it may be waiting for.
    pub(super) fn tell(&self) {
        self.room.note_tasks(self.budget, self.resident_bytes());
        if self.slots.iter().any(|slot| slot.loading.is_some()) {
            self.leave(Job::Look);
        }
    }

    /// Moves a result of the loader into its slot.
    fn place(&mut self, done: Done) {
        // The loader accounts for this workspace from now on, whatever becomes of the task.
        let outcome = done.outcome.map(|loaded| {
            if let Some(space) = loaded.space {
                let old = self.session.cpu.space.replace(space);
                self.leave(Job::Free(old));
            }
            loaded.task
        });
        let slot = &mut self.slots[done.slot];
        if !slot.loading.as_ref().is_some_and(|ticket| ticket.is(&done.ticket)) {
            // Cancelled or superseded: nobody is waiting for it any more.
            self.discard(outcome.ok());
            return;
        }
        slot.loading = None;
        let task = match outcome {
            Ok(task) => task,
            Err(error) => {
                self.stats.failed_loads += 1;
                slot.error = Some(error);
                let broken = self.without_broken(done.slot);
                self.discard(broken);
                return;
            }
        };
        let streamed = slot.task.as_ref().is_some_and(|own| Arc::ptr_eq(own, &task));
        let before = slot.before.take();
        self.discard(before);
        // A streamed task is in its slot already.
        if streamed {
            return;
        }
        if let Err(error) = self.settle_in(done.slot, task) {
            self.slots[done.slot].error = Some(error);
        }
    }

    /// Removes a streamed task that turned out to be broken from its slot. Its predecessor in the slot comes
    /// back; if there was none and the broken task was running, the task that ran before it does.
    pub(super) fn without_broken(&mut self, index: usize) -> Option<Arc<Task>> {
        let slot = &mut self.slots[index];
        let broken = slot.task.take_if(|task| task.has_failed())?;
        slot.task = slot.before.take();
        if let Some(task) = &slot.task {
            slot.name = task.name().into();
        }
        if slot.task.is_none() && self.current == Some(index) {
            let fallback = self.fallback.take();
            self.current = fallback.filter(|&slot| self.task_in(slot).is_some());
        }
        Some(broken)
    }

    /// Drops a task; on the loader thread, to spare this one, if there is a loader and it has freed the last
    /// one.
    pub(super) fn discard(&self, task: Option<Arc<Task>>) {
        if let Some(task) = task.filter(|_| self.loader.is_some() && self.room.lets_leave()) {
            self.leave(Job::Drop(task));
        }
    }

    /// Hands `job` to the loader if there is one; otherwise it is dropped here.
    fn leave(&self, job: Job) {
        if let Some(loader) = &self.loader {
            // If the loader thread is gone, it is freed here after all.
            let _ = loader.ask(job);
        }
    }

    pub(super) fn admit(&mut self, task: Arc<Task>, path: Option<&Path>) -> Result<TaskId> {
        self.collect();
        let slot = self.slot(task.name(), path);
        self.counted(|this| {
            this.check_budget(slot, &task)?;
            this.session.reserve(&task)
        })?;
        self.room.note(&self.session.cpu.space);
        self.settle_in(slot, task)?;
        // A load under way from the same file to another slot is older, and would replace this one.
        let twins = self.slots.iter_mut().enumerate();
        for (_, twin) in
            twins.filter(|(i, twin)| *i != slot && path.is_some() && twin.path.as_deref() == path)
        {
            if let Some(ticket) = twin.loading.take_if(|_| twin.task.is_none()) {
                ticket.cancel();
                self.stats.cancelled_loads += 1;
            }
        }
        self.tell();
        self.slots[slot].path = path.map(Path::to_path_buf);
        Ok(TaskId(slot))
    }

    /// True while the task in this slot is being loaded or streamed in, until a [`poll`](Runtime::poll) or a
    /// switch takes it in.
    pub fn is_loading(&self, id: TaskId) -> bool {
        self.slots.get(id.0).is_some_and(|slot| slot.loading.is_some())
    }

    /// The slot of a task by name; if two have it, the one that was loaded or used last.
    pub fn find(&self, name: &str) -> Option<TaskId> {
        let named = (0..self.slots.len()).filter(|&slot| self.slots[slot].name == name);
        named.max_by_key(|&slot| (self.slots[slot].task.is_some(), self.slots[slot].used)).map(TaskId)
    }

    /// Resident tasks.
    pub fn resident(&self) -> impl Iterator<Item = (TaskId, &Task)> {
        self.slots.iter().enumerate().filter_map(|(i, slot)| Some((TaskId(i), slot.task.as_deref()?)))
    }

    /// The running task.
    pub fn current(&self) -> Option<(TaskId, &Task)> {
        let id = self.current?;
        Some((TaskId(id), self.task_in(id)?))
    }

    pub(super) fn task_in(&self, slot: usize) -> Option<&Task> {
        self.slots.get(slot)?.task.as_deref()
    }

    /// Bytes of resident tasks, and of predecessors kept until their streamed successors are complete;
    /// excluding the backbone and the arena.
    pub fn resident_bytes(&self) -> usize {
        (0..self.slots.len()).map(|slot| self.bytes_in(slot)).sum()
    }

    /// Bytes of the task in this slot and of its predecessor, if that is still there.
    pub(super) fn bytes_in(&self, slot: usize) -> usize {
        let Some(Slot { task, before, .. }) = self.slots.get(slot) else { return 0 };
        [task, before].into_iter().flatten().map(|task| task.resident_bytes()).sum()
    }

    /// Slots that must not be evicted: the running task's, those it is to be switched to, and, while the running
    /// task is still arriving, that of the task to fall back to.
    fn kept(&self) -> [Option<usize>; 4] {
        let arriving = self.current().is_some_and(|(_, task)| !task.is_complete());
        [self.current, self.wanted, self.switching, self.fallback.filter(|_| arriving)]
    }

    /// Bytes in slot `slot` that stay when `task` is admitted: those of a complete, needed task until its
    /// streamed successor is complete.
    fn stays_beside(&self, slot: usize, task: &Task) -> usize {
        let Slot { task: old, before, .. } = &self.slots[slot];
        let is_needed = self.kept().contains(&Some(slot)) && !task.is_complete();
        let whole = old.iter().find(|old| old.is_complete()).or(before.as_ref());
        whole.filter(|_| is_needed).map_or(0, |whole| whole.resident_bytes())
    }

    /// Refuses a task that does not fit the budget together with those that must stay.
    fn check_budget(&self, slot: usize, task: &Task) -> Result<()> {
        let kept = self.kept();
        let others = (0..self.slots.len()).filter(|i| *i != slot && kept.contains(&Some(*i)));
        let least: usize = others.map(|i| self.bytes_in(i)).sum();
        let need = least.saturating_add(self.stays_beside(slot, task)).saturating_add(task.resident_bytes());
        if need > self.budget {
            return Err(Error::TooLarge {
                what: format!("task `{}` beside those that must stay, in bytes", task.name()),
                need,
                limit: self.budget,
            });
        }
        Ok(())
    }

    /// Puts a task into its slot, replacing idle ones of the same name, and evicts others until the budget is
    /// met.
    fn settle_in(&mut self, slot: usize, task: Arc<Task>) -> Result<()> {
        // Check first, so that nothing is evicted in vain.
        self.counted(|this| this.check_budget(slot, &task))?;
        let need = task.resident_bytes().saturating_add(self.stays_beside(slot, &task));
        let kept = self.kept();
        let stays = |i: &usize| *i == slot || kept.contains(&Some(*i));
        let twins =
            |i: &usize| !stays(i) && self.slots[*i].task.is_some() && self.slots[*i].name == task.name();
        let twins: Vec<usize> = (0..self.slots.len()).filter(twins).collect();
        for twin in twins {
            self.evict(TaskId(twin))?;
        }
        let spare = loop {
            let others = (0..self.slots.len()).filter(|i| *i != slot);
            let taken: usize = others.map(|i| self.bytes_in(i)).sum();
            let rest = self.budget.saturating_sub(taken.saturating_add(need));
            if taken.saturating_add(need) <= self.budget {
                break rest;
            }
            // Predecessors that are kept only in case a successor turns out to be broken go first.
            if let Some(other) = (0..self.slots.len()).find(|i| !stays(i) && self.slots[*i].before.is_some())
            {
                let before = self.slots[other].before.take();
                self.discard(before);
                continue;
            }
            let idle = (0..self.slots.len())
                .filter(|i| !stays(i) && self.slots[*i].task.is_some())
                .min_by_key(|i| self.slots[*i].used);
            let Some(victim) = idle else { break 0 };
            self.evict(TaskId(victim))?;
        };
        self.clock += 1;
        let entry = &mut self.slots[slot];
        if let Some(ticket) = entry.loading.take() {
            ticket.cancel();
        }
        let (complete, needed) = (task.is_complete(), kept.contains(&Some(slot)));
        let old = entry.task.replace(Arc::clone(&task));
        let kept = old.and_then(|old| {
            // The old task stays until its streamed successor is complete, if there is room for both.
            let fits = needed || old.resident_bytes() <= spare;
            if complete || !old.is_complete() || !fits {
                return Some(old);
            }
            entry.before.replace(old)
        });
        let before = if complete { entry.before.take() } else { None };
        entry.name = task.name().into();
        entry.used = self.clock;
        entry.error = None;
        self.stats.loads += 1;
        self.discard(kept);
        self.discard(before);
        Ok(())
    }

    /// The slot of this name or path; a new one if there is none.
    fn slot(&mut self, name: &str, path: Option<&Path>) -> usize {
        let of_path = || self.slots.iter().position(|slot| path.is_some() && slot.path.as_deref() == path);
        let known = self.find(name).map(|id| id.0).or_else(of_path);
        known.unwrap_or_else(|| self.new_slot(name.into(), path))
    }

    pub(super) fn new_slot(&mut self, name: String, path: Option<&Path>) -> usize {
        let path = path.map(Path::to_path_buf);
        self.slots.push(Slot { name, path, task: None, before: None, loading: None, error: None, used: 0 });
        self.slots.len() - 1
    }
}
