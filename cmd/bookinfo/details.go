package main

import (
	"net/http"
	"time"
)

// maxSlow bounds how long /slow may sleep.
const maxSlow = 30 * time.Second

// detailsHandler serves facts about books, and /slow/DURATION for trying timeouts.
func detailsHandler() http.Handler {
	books := catalogue()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /details/{id}", func(w http.ResponseWriter, r *http.Request) {
		if b, ok := bookOf(w, r, books); ok {
			writeJSON(w, http.StatusOK, b)
		}
	})
	mux.HandleFunc("GET /slow/{duration}", slow)
	return mux
}

func slow(w http.ResponseWriter, r *http.Request) {
	d, err := time.ParseDuration(r.PathValue("duration"))
	if err != nil || d < 0 || d > maxSlow {
		writeError(w, http.StatusBadRequest, "duration %q: say one from 0s to %s, like 200ms", r.PathValue("duration"), maxSlow)
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		writeJSON(w, http.StatusOK, map[string]string{"slept": d.String()})
	case <-r.Context().Done(): // the caller gave up
	}
}
