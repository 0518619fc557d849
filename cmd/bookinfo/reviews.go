package main

import (
	"cmp"
	"net/http"
)

// ratingsAnswer is what ratings answers.
type ratingsAnswer struct {
	ID      int            `json:"id"`
	Ratings map[string]int `json:"ratings"`
}

// ratingsHandler serves the stars that readers gave.
func ratingsHandler() http.Handler {
	books := catalogue()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ratings/{id}", func(w http.ResponseWriter, r *http.Request) {
		if b, ok := bookOf(w, r, books); ok {
			writeJSON(w, http.StatusOK, ratingsAnswer{ID: b.ID, Ratings: b.ratings})
		}
	})
	return mux
}

// reviewsAnswer is what reviews answers.
type reviewsAnswer struct {
	ID      int      `json:"id"`
	Version string   `json:"version"`
	Reviews []review `json:"reviews"`
}

// reviews is one version of the reviews service.
type reviews struct {
	version string
	// color of the stars; "" shows none and does not call ratings.
	color   string
	ratings string // base URL
	client  *http.Client
	books   []book
}

func newReviews(version, color, ratings string) *reviews {
	return &reviews{version: version, color: color, ratings: ratings, client: newClient(), books: catalogue()}
}

func (s *reviews) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /reviews/{id}", s.serve)
	return mux
}

func (s *reviews) serve(w http.ResponseWriter, r *http.Request) {
	b, ok := bookOf(w, r, s.books)
	if !ok {
		return
	}
	answer := reviewsAnswer{ID: b.ID, Version: s.version, Reviews: make([]review, len(b.reviews))}
	copy(answer.Reviews, b.reviews)
	if s.color != "" {
		s.addStars(r, answer)
	}
	writeJSON(w, http.StatusOK, answer)
}

// addStars asks ratings. Reviews without stars are better than none, so a failure is told in the place of the stars.
func (s *reviews) addStars(r *http.Request, answer reviewsAnswer) {
	var got ratingsAnswer
	err := getJSON(r, s.client, call{url: s.ratings + "/ratings/" + r.PathValue("id")}, &got)
	for i := range answer.Reviews {
		given := &answer.Reviews[i]
		if stars := got.Ratings[given.Reviewer]; err == nil && stars > 0 {
			given.Rating = &rating{Stars: stars, Color: s.color}
			continue
		}
		given.Rating = &rating{Error: "no rating: " + cmp.Or(errorText(err), "the reader gave none")}
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
