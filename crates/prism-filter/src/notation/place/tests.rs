//! What is near, on a globe.

use proptest::{prelude::*, sample::select};
use serde_json::{Value, json};

use super::*;
use crate::Operand;

fn area(value: &Value) -> Area {
    Area::of(Operand::try_from(value).unwrap().view()).unwrap_or_else(|problem| panic!("{value}: {problem}"))
}

fn circle(lat: f64, lon: f64, radius: f64) -> Area {
    area(&json!({ "lat": lat, "lon": lon, "radius_m": radius }))
}

fn bounds(south: f64, west: f64, north: f64, east: f64) -> Area {
    area(&json!({ "south": south, "west": west, "north": north, "east": east }))
}

fn at(lat: f64, lon: f64) -> Point {
    Point { lat, lon }
}

/// The great-circle distance by way of unit vectors, which has no special places.
fn distance(one: Point, other: Point) -> f64 {
    let vector = |point: Point| {
        let (lat, lon) = (point.lat.to_radians(), point.lon.to_radians());
        [lat.cos() * lon.cos(), lat.cos() * lon.sin(), lat.sin()]
    };
    let (a, b) = (vector(one), vector(other));
    let cross = [
        a[1] * b[2] - a[2] * b[1],
        a[2] * b[0] - a[0] * b[2],
        a[0] * b[1] - a[1] * b[0],
    ];
    let length = cross.iter().map(|x| x * x).sum::<f64>().sqrt();
    let dot: f64 = a.iter().zip(b).map(|(x, y)| x * y).sum();
    EARTH * length.atan2(dot)
}

#[test]
fn distances_are_those_of_the_globe() {
    // San Francisco to Los Angeles, and London to Tokyo.
    let cases = [
        (at(37.7749, -122.4194), at(34.0522, -118.2437), 559_120.0),
        (at(51.5074, -0.1278), at(35.6762, 139.6503), 9_558_600.0),
    ];
    for (one, other, metres) in cases {
        assert!(circle(one.lat, one.lon, metres + 1_000.0).contains(other));
        assert!(!circle(one.lat, one.lon, metres - 1_000.0).contains(other));
    }
}

/// Along a meridian the distance is the difference of latitudes.
#[test]
fn circles_reach_as_far_north_and_south_as_they_say() {
    for degrees in [1e-4, 0.1, 3.0, 45.0, 89.0] {
        let around = circle(0.0, 77.0, EARTH * f64::to_radians(degrees));
        for sign in [1.0, -1.0] {
            assert!(around.contains(at(sign * degrees * 0.999_999, 77.0)), "{degrees}");
            assert!(
                !around.contains(at(sign * degrees * 1.000_001, 77.0)),
                "{degrees}"
            );
        }
    }
}

#[test]
fn circles_go_across_the_antimeridian_and_the_poles() {
    // Two places 22 km apart with the antimeridian between them.
    assert!(circle(0.0, 179.9, 22_300.0).contains(at(0.0, -179.9)));
    assert!(!circle(0.0, 179.9, 22_200.0).contains(at(0.0, -179.9)));
    // Over the pole from one side to the other.
    assert!(circle(89.9, 0.0, 22_300.0).contains(at(89.9, 180.0)));
    assert!(!circle(89.9, 0.0, 22_200.0).contains(at(89.9, 180.0)));
    assert!(circle(-89.95, 10.0, 12_000.0).contains(at(-89.95, -100.0)));
}

/// A circle without a radius holds the one place, whichever way that is written.
#[test]
fn a_place_is_at_no_distance_from_itself() {
    assert!(circle(12.5, 180.0, 0.0).contains(at(12.5, -180.0)));
    assert!(circle(12.5, -180.0, 0.0).contains(at(12.5, 180.0)));
    assert!(circle(90.0, 0.0, 0.0).contains(at(90.0, 77.0)));
    assert!(circle(-90.0, 120.0, 0.0).contains(at(-90.0, -60.0)));
    assert!(circle(37.7749, -122.4194, 0.0).contains(at(37.7749, -122.4194)));
    assert!(!circle(37.7749, -122.4194, 0.0).contains(at(37.7749, -122.4193)));
}

#[test]
fn the_largest_circle_is_everywhere() {
    for radius in [EARTH * PI, EARTH * PI + 1.0, 1e300] {
        for point in [at(0.0, 0.0), at(0.0, 180.0), at(-37.7749, 57.5806), at(90.0, 0.0)] {
            assert!(
                circle(37.7749, -122.4194, radius).contains(point),
                "{radius} {point:?}"
            );
        }
    }
    assert!(!circle(0.0, 0.0, EARTH * PI - 1_000.0).contains(at(0.0, 180.0)));
}

#[test]
fn boxes_have_sides_and_go_across_the_antimeridian() {
    let plain = bounds(-10.0, 20.0, 10.0, 30.0);
    for inside in [at(0.0, 25.0), at(-10.0, 20.0), at(10.0, 30.0)] {
        assert!(plain.contains(inside), "{inside:?}");
    }
    for outside in [
        at(0.0, 19.9),
        at(0.0, 30.1),
        at(10.1, 25.0),
        at(-10.1, 25.0),
        at(0.0, -25.0),
    ] {
        assert!(!plain.contains(outside), "{outside:?}");
    }
    let across = bounds(-10.0, 170.0, 10.0, -170.0);
    for inside in [
        at(0.0, 175.0),
        at(0.0, -175.0),
        at(0.0, 180.0),
        at(0.0, -180.0),
        at(0.0, 170.0),
    ] {
        assert!(across.contains(inside), "{inside:?}");
    }
    for outside in [at(0.0, 0.0), at(0.0, 169.9), at(0.0, -169.9)] {
        assert!(!across.contains(outside), "{outside:?}");
    }
}

#[test]
fn the_antimeridian_has_two_names_and_a_pole_all_of_them() {
    assert!(bounds(0.0, 170.0, 1.0, 180.0).contains(at(0.5, -180.0)));
    assert!(bounds(0.0, -180.0, 1.0, -170.0).contains(at(0.5, 180.0)));
    assert!(!bounds(0.0, -170.0, 1.0, 170.0).contains(at(0.5, 180.0)));
    assert!(bounds(0.0, 180.0, 1.0, -180.0).contains(at(0.5, 180.0)));
    assert!(!bounds(0.0, 180.0, 1.0, -180.0).contains(at(0.5, 179.0)));
    assert!(bounds(80.0, 10.0, 90.0, 20.0).contains(at(90.0, -135.0)));
    assert!(!bounds(80.0, 10.0, 89.0, 20.0).contains(at(90.0, 15.0)));
    assert!(bounds(-90.0, 10.0, -90.0, 20.0).contains(at(-90.0, 0.0)));
    assert!(!bounds(-90.0, 10.0, -80.0, 20.0).contains(at(-89.9, 0.0)));
}

#[test]
fn what_is_no_area_says_why() {
    for (value, problem) in [
        (json!("here"), "the string `here`"),
        (json!({}), "an object without `lat`"),
        (json!({ "lat": 1, "lon": 2 }), "an object without `radius_m`"),
        (
            json!({ "lat": 1, "lon": 2, "radius": 5 }),
            "an object with `radius`",
        ),
        (
            json!({ "lat": 1, "lon": 2, "radius_m": -1 }),
            "one with a `radius_m` of -1",
        ),
        (
            json!({ "lat": "1", "lon": 2, "radius_m": 1 }),
            "one whose `lat` is of type string",
        ),
        (
            json!({ "lat": 91, "lon": 2, "radius_m": 1 }),
            "one with a `lat` of 91, beyond 90 degrees",
        ),
        (
            json!({ "lat": 1, "lon": -181, "radius_m": 1 }),
            "one with a `lon` of -181, beyond 180 degrees",
        ),
        (
            json!({ "south": 1, "west": 2, "north": 3 }),
            "an object without `east`",
        ),
        (
            json!({ "south": 3, "west": 2, "north": 1, "east": 2 }),
            "one whose `south` lies north of its `north`",
        ),
        (
            json!({ "south": 1, "west": 2, "north": 3, "east": 181 }),
            "one with a `east` of 181, beyond 180 degrees",
        ),
        (
            json!({ "south": 1, "west": 2, "north": 3, "east": 4, "lat": 1 }),
            "an object with `lat`",
        ),
    ] {
        let refused = Area::of(Operand::try_from(&value).unwrap().view());
        assert_eq!(refused, Err(problem.into()), "{value}");
    }
}

#[test]
fn a_place_has_coordinates_on_earth() {
    let point = |value: Value| Point::of(Operand::try_from(value).unwrap().view());
    assert_eq!(
        point(json!({ "lat": 90, "lon": -180, "floor": 3 })),
        Some(at(90.0, -180.0))
    );
    for value in [
        json!({ "lat": 90.1, "lon": 0 }),
        json!({ "lat": 0, "lon": 180.5 }),
        json!({ "lat": "1", "lon": 0 }),
        json!({ "lat": 1 }),
        json!({}),
        json!([1, 2]),
        json!("1,2"),
        json!(null),
        json!({ "latitude": 1, "lon": 2 }),
    ] {
        assert_eq!(point(value.clone()), None, "{value}");
    }
}

fn latitudes() -> impl Strategy<Value = f64> {
    prop_oneof![
        select(vec![
            -90.0, -89.999, -45.0, -0.0, 0.0, 0.001, 37.7749, 89.9999, 90.0
        ]),
        -90.0..=90.0_f64
    ]
}

fn longitudes() -> impl Strategy<Value = f64> {
    prop_oneof![
        select(vec![
            -180.0, -179.999, -90.0, 0.0, 0.001, 122.4194, 179.9999, 180.0
        ]),
        -180.0..=180.0_f64
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    /// Both formulas agree but for a millimetre at the edge, and further away from it near the antipode,
    /// where both lose digits.
    #[test]
    fn circles_hold_what_is_near(
        lat in latitudes(), lon in longitudes(), other_lat in latitudes(), other_lon in longitudes(),
        radius in prop_oneof![select(vec![0.0, 1.0, 112.0, 1e4, 1e7]), 0.0..2.1e7_f64],
    ) {
        let (center, point) = (at(lat, lon), at(other_lat, other_lon));
        let away = distance(center, point);
        let slack = if away > 1.9e7 { 1.0 } else { 1e-3 };
        let inside = circle(lat, lon, radius).contains(point);
        if away < radius - slack {
            prop_assert!(inside, "{center:?} {point:?} {radius} {away}");
        } else if away > radius + slack {
            prop_assert!(!inside, "{center:?} {point:?} {radius} {away}");
        }
    }

    /// What is in an area lies between its latitudes: an index by latitude loses nothing.
    #[test]
    fn areas_lie_between_their_latitudes(
        lat in latitudes(), lon in longitudes(), other_lat in latitudes(), other_lon in longitudes(),
        share in prop_oneof![Just(1.0), 0.0..1.5_f64],
    ) {
        let point = at(other_lat, other_lon);
        // Often exactly at the edge, where rounding decides.
        let near = circle(lat, lon, distance(at(lat, lon), point) * share);
        let (south, north) = (lat.min(other_lat), lat.max(other_lat));
        for area in [near, bounds(south, lon, north, other_lon)] {
            let (south, north) = area.latitudes();
            if area.contains(point) {
                prop_assert!(south <= point.latitude() && point.latitude() <= north, "{area:?} {point:?}");
            }
        }
    }
}
