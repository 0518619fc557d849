package main

import (
	"io"
	"net/http"
	"sync"
)

// keptRequests is how many of the last requests audit remembers.
const keptRequests = 10

// audit is where mirrored requests go. It counts them; nobody reads its answers.
type audit struct {
	mu    sync.Mutex // guards the fields below
	count int
	last  []auditEntry
}

// auditEntry is one mirrored request.
type auditEntry struct {
	Method string `json:"method"`
	Host   string `json:"host"`
	Path   string `json:"path"`
	// Bytes is the size of the body.
	Bytes int64 `json:"bytes"`
}

// auditAnswer is what /count answers.
type auditAnswer struct {
	Mirrored int          `json:"mirrored"`
	Last     []auditEntry `json:"last"`
}

func (a *audit) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /count", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, http.StatusOK, a.snapshot()) })
	mux.HandleFunc("/", a.record)
	return mux
}

func (a *audit) record(w http.ResponseWriter, r *http.Request) {
	n, err := io.Copy(io.Discard, r.Body)
	if err != nil {
		return // a copy that broke off is no request to count
	}
	a.mu.Lock()
	a.count++
	a.last = append(a.last, auditEntry{Method: r.Method, Host: r.Host, Path: r.URL.RequestURI(), Bytes: n})
	a.last = a.last[max(0, len(a.last)-keptRequests):]
	a.mu.Unlock()
	w.WriteHeader(http.StatusNoContent)
}

func (a *audit) snapshot() auditAnswer {
	a.mu.Lock()
	defer a.mu.Unlock()
	return auditAnswer{Mirrored: a.count, Last: append([]auditEntry{}, a.last...)}
}
