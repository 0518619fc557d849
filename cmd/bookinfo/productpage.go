package main

import (
	_ "embed"
	"fmt"
	"html/template"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
)

//go:embed page.html
var pageHTML string

const (
	// userCookie holds who is signed in.
	userCookie = "user"
	// pinCookie holds the version of reviews to stay on; deploy/examples/bookinfo/reviews.yaml matches it.
	pinCookie = "reviews"
	// maxSample bounds how many reviews one press of the page's button asks for, sampleWorkers how many at a time.
	maxSample     = 1000
	sampleWorkers = 8
)

// productpage is the HTML page. It asks details directly, as inside a cluster, and reviews through the gateway.
type productpage struct {
	details     string // base URL
	gateway     string // base URL
	reviewsHost string
	client      *http.Client
	template    *template.Template
	tally       *tally
}

func newProductpage(details, gateway, reviewsHost string) (*productpage, error) {
	t, err := template.New("page").Funcs(template.FuncMap{
		"stars": func(n int) string { return strings.Repeat("★", n) + strings.Repeat("☆", max(0, 5-n)) },
	}).Parse(pageHTML)
	if err != nil {
		return nil, fmt.Errorf("productpage: %w", err)
	}
	return &productpage{
		details: details, gateway: strings.TrimSuffix(gateway, "/"), reviewsHost: reviewsHost,
		client: newClient(), template: t, tally: newTally(),
	}, nil
}

// close ends the event streams.
func (p *productpage) close() { p.tally.close() }

func (p *productpage) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/productpage", http.StatusFound) })
	mux.HandleFunc("GET /productpage", p.show)
	mux.HandleFunc("GET /productpage/{id}", p.show)
	mux.HandleFunc("POST /productpage/sign-in", func(w http.ResponseWriter, r *http.Request) { setCookie(w, r, userCookie, "user") })
	mux.HandleFunc("POST /productpage/pin", func(w http.ResponseWriter, r *http.Request) { setCookie(w, r, pinCookie, "version") })
	mux.HandleFunc("POST /productpage/sample", p.sample)
	mux.HandleFunc("POST /productpage/reset", func(w http.ResponseWriter, _ *http.Request) {
		p.tally.reset()
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("GET /events", p.tally.stream)
	return mux
}

// view is what the template shows.
type view struct {
	Book         book
	Books        []book
	DetailsError string
	Reviews      reviewsAnswer
	ReviewsError string
	User         string
	Pinned       string
	// Edge is what the gateway's header modifier set; "" when the page was opened past the gateway.
	Edge string
}

func (p *productpage) show(w http.ResponseWriter, r *http.Request) {
	id := 0
	if s := r.PathValue("id"); s != "" {
		var err error
		if id, err = strconv.Atoi(s); err != nil || id < 0 {
			http.Error(w, "no such book", http.StatusNotFound)
			return
		}
	}
	v := view{Books: catalogue(), User: userOf(r), Edge: r.Header.Get("X-Bookinfo-Edge")}
	if c, err := r.Cookie(pinCookie); err == nil {
		v.Pinned = c.Value
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		err := getJSON(r, p.client, call{url: p.details + "/details/" + strconv.Itoa(id)}, &v.Book)
		v.DetailsError = errorText(err)
	})
	wg.Go(func() {
		var err error
		v.Reviews, err = p.fetchReviews(r, id)
		v.ReviewsError = errorText(err)
	})
	wg.Wait()
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store") // each load is another draw from the canary's weights
	_ = p.template.Execute(w, v)                // fails only when the client is gone
}

// fetchReviews asks reviews by way of the gateway and counts which version answered.
func (p *productpage) fetchReviews(r *http.Request, id int) (reviewsAnswer, error) {
	var answer reviewsAnswer
	c := call{url: p.gateway + "/reviews/" + strconv.Itoa(id), host: p.reviewsHost}
	if err := getJSON(r, p.client, c, &answer); err != nil {
		p.tally.add("")
		return answer, fmt.Errorf("through the gateway: %w", err)
	}
	p.tally.add(answer.Version)
	return answer, nil
}

// sample asks for reviews n times, as the visitor who pressed the button.
func (p *productpage) sample(w http.ResponseWriter, r *http.Request) {
	n, err := strconv.Atoi(r.FormValue("n"))
	if err != nil || n < 1 || n > maxSample {
		writeError(w, http.StatusBadRequest, "n %q: say how many requests to send, 1 to %d", r.FormValue("n"), maxSample)
		return
	}
	var wg sync.WaitGroup
	var next, failed atomic.Int64
	for range min(n, sampleWorkers) {
		wg.Go(func() {
			for next.Add(1) <= int64(n) && r.Context().Err() == nil {
				if _, err := p.fetchReviews(r, 0); err != nil {
					failed.Add(1)
				}
			}
		})
	}
	wg.Wait()
	writeJSON(w, http.StatusOK, map[string]int64{"sent": int64(n), "failed": failed.Load()})
}

// setCookie keeps a form field in a cookie, or drops the cookie when the field is empty, and goes back to the page.
func setCookie(w http.ResponseWriter, r *http.Request, cookie, field string) {
	c := &http.Cookie{Name: cookie, Value: r.FormValue(field), Path: "/", HttpOnly: true, SameSite: http.SameSiteLaxMode}
	if c.Value == "" {
		c.MaxAge = -1
	}
	if len(c.Value) > 64 || c.Valid() != nil {
		http.Error(w, field+": up to 64 letters and digits", http.StatusBadRequest)
		return
	}
	http.SetCookie(w, c)
	http.Redirect(w, r, "/productpage", http.StatusSeeOther)
}
