//go:build !race

package upstream

// raceDetector says that the tests run with the race detector, under which a sync.Pool forgets at random.
const raceDetector = false
