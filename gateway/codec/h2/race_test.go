//go:build race

package h2

// raceDetector makes sync.Pool forget at random.
const raceDetector = true
