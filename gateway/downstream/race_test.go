//go:build race

package downstream

// raceDetector makes sync.Pool forget at random.
const raceDetector = true
