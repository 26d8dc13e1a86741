//! What is kept about a call while it is under way: its place among all calls, its place on a lane, and
//! what is to be counted when it is over.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::time::Instant;
use tonic::Code;

use super::{lane::OnLane, method::Method};
use crate::metrics::Series;

/// Bounds how many calls are under way.
#[derive(Debug, Default)]
pub(crate) struct Admission {
    under_way: AtomicUsize,
}

impl Admission {
    /// A place, unless `limit` calls have one.
    pub(crate) fn enter(self: &Arc<Self>, limit: usize) -> Option<Place> {
        // Counted first, so that two that come at once cannot both get the last place.
        if self.under_way.fetch_add(1, Ordering::Relaxed) >= limit {
            self.under_way.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Place(self.clone()))
    }

    /// How many calls are under way.
    pub(crate) fn under_way(&self) -> usize {
        self.under_way.load(Ordering::Relaxed)
    }
}

/// A call's place among all calls, or a stream's among those of its connection.
#[derive(Debug)]
pub(crate) struct Place(Arc<Admission>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The account of one call. Dropping it ends the call: it is counted with its status, or as cancelled
/// when there never was one.
#[derive(Debug)]
pub(crate) struct Account {
    series: Arc<Series>,
    method: Method,
    began: Instant,
    code: Option<Code>,
    _lane: Option<OnLane>,
    /// On the runner's connection.
    _stream: Option<Place>,
    _place: Option<Place>,
}

impl Account {
    pub(crate) fn open(series: Arc<Series>, method: Method, began: Instant, place: Option<Place>) -> Self {
        series.metrics().calls_in_flight.inc();
        Self {
            series,
            method,
            began,
            code: None,
            _lane: None,
            _stream: None,
            _place: place,
        }
    }

    pub(crate) fn series(&self) -> &Arc<Series> {
        &self.series
    }

    /// The call is with this runner now, and on no connection yet.
    pub(crate) fn move_to(&mut self, lane: OnLane) {
        self._lane = Some(lane);
        self._stream = None;
    }

    /// The call has this place on a connection to its runner.
    pub(crate) fn on_stream(&mut self, stream: Place) {
        self._stream = Some(stream);
    }

    /// The call is one too many.
    pub(crate) fn shed(&self) {
        self.series.metrics().calls_shed.inc();
    }

    /// The call has this status.
    pub(crate) fn answered(&mut self, code: Code) {
        self.code = Some(code);
    }

    pub(crate) fn is_answered(&self) -> bool {
        self.code.is_some()
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.series.metrics().calls_in_flight.dec();
        let code = self.code.unwrap_or(Code::Cancelled);
        self.series.answered(self.method, code, self.began.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_places_than_there_are() {
        let admission = Arc::new(Admission::default());
        let places: Vec<_> = (0..5).filter_map(|_| admission.enter(3)).collect();
        assert_eq!((places.len(), admission.under_way()), (3, 3));
        drop(places);
        assert_eq!(admission.under_way(), 0);
        assert!(admission.enter(3).is_some());
    }
}
