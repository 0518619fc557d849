package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	discoveryv1 "k8s.io/api/discovery/v1"
	"sigs.k8s.io/yaml"
)

func TestServices(t *testing.T) {
	t.Parallel()
	b := startTest(t, "http://127.0.0.1:1")
	tests := map[string]struct {
		service, path string
		want          int
		wantBody      string
	}{
		"details":                {detailsName, "/details/0", 200, `"title": "The Tempest"`},
		"details, unknown book":  {detailsName, "/details/99", 404, `no book \"99\": ids go from 0 to 2`},
		"details, not a number":  {detailsName, "/details/x", 404, `no book \"x\"`},
		"details, negative":      {detailsName, "/details/-1", 404, `no book \"-1\"`},
		"slow":                   {detailsName, "/slow/1ms", 200, `"slept": "1ms"`},
		"slow, nonsense":         {detailsName, "/slow/soon", 400, `duration \"soon\": say one from 0s to 30s`},
		"slow, too long":         {detailsName, "/slow/31s", 400, `31s`},
		"ratings":                {ratingsName, "/ratings/0", 200, `"Miranda": 5`},
		"reviews v1 has no star": {reviewsV1Name, "/reviews/0", 200, `"version": "v1"`},
		"reviews v2 is black":    {reviewsV2Name, "/reviews/0", 200, `"color": "black"`},
		"reviews v3 is red":      {reviewsV3Name, "/reviews/0", 200, `"color": "red"`},
		"reviews, unknown book":  {reviewsV3Name, "/reviews/3", 404, `no book`},
		"audit":                  {auditName, "/count", 200, `"mirrored": 0`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			resp, body := do(t, "GET", "http://"+b.addr(tt.service)+tt.path, nil)
			if resp.StatusCode != tt.want || !strings.Contains(body, tt.wantBody) {
				t.Errorf("%d %s, want %d with %s", resp.StatusCode, body, tt.want, tt.wantBody)
			}
			if got := resp.Header.Get("X-Bookinfo-Service"); got != tt.service {
				t.Errorf("x-bookinfo-service is %q, want %q", got, tt.service)
			}
		})
	}
}

func TestReviewsV1ShowsNoStars(t *testing.T) {
	t.Parallel()
	b := startTest(t, "http://127.0.0.1:1")
	if _, body := do(t, "GET", "http://"+b.addr(reviewsV1Name)+"/reviews/0", nil); strings.Contains(body, "rating") {
		t.Errorf("reviews v1 answered %s, want no ratings", body)
	}
}

func TestReviewsWithoutRatings(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_ = l.Close()
	srv := newReviews("v2", "black", "http://"+addr)
	l, err = net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: srv.handler()}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	resp, body := do(t, "GET", "http://"+l.Addr().String()+"/reviews/0", nil)
	if want := "no rating: no connection to " + addr; resp.StatusCode != 200 || !strings.Contains(body, want) {
		t.Errorf("%d %s, want 200 with %q", resp.StatusCode, body, want)
	}
}

func TestHealth(t *testing.T) {
	t.Parallel()
	b := startTest(t, "http://127.0.0.1:1")
	for _, name := range serviceNames() {
		resp, body := do(t, "GET", "http://"+b.addr(name)+"/health", nil)
		if resp.StatusCode != 200 || !strings.Contains(body, fmt.Sprintf("%q: %q", "service", name)) {
			t.Errorf("%s: %d %s", name, resp.StatusCode, body)
		}
	}
	var got auditAnswer
	_, body := do(t, "GET", "http://"+b.addr(auditName)+"/count", nil)
	if err := json.Unmarshal([]byte(body), &got); err != nil || got.Mirrored != 0 {
		t.Errorf("health checks were counted as mirrored requests: %s", body)
	}
}

func TestAuditCounts(t *testing.T) {
	t.Parallel()
	b := startTest(t, "http://127.0.0.1:1")
	const sent = keptRequests + 3
	for i := range sent {
		if resp, _ := do(t, "POST", fmt.Sprintf("http://%s/ratings/%d?x=1", b.addr(auditName), i), strings.NewReader("12345")); resp.StatusCode != 204 {
			t.Fatalf("status %d", resp.StatusCode)
		}
	}
	var got auditAnswer
	_, body := do(t, "GET", "http://"+b.addr(auditName)+"/count", nil)
	if err := json.Unmarshal([]byte(body), &got); err != nil {
		t.Fatal(err)
	}
	want := auditEntry{Method: "POST", Host: b.addr(auditName), Path: fmt.Sprintf("/ratings/%d?x=1", sent-1), Bytes: 5}
	if got.Mirrored != sent || len(got.Last) != keptRequests || got.Last[keptRequests-1] != want {
		t.Errorf("got %+v, want %d requests, the last %+v", got, sent, want)
	}
}

func TestUnencryptedHTTP2(t *testing.T) {
	t.Parallel()
	b := startTest(t, "http://127.0.0.1:1")
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: protocols}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport}).Get("http://" + b.addr(ratingsName) + "/ratings/0")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.ProtoMajor != 2 || resp.StatusCode != 200 {
		t.Errorf("%s %s, want HTTP/2.0 200", resp.Proto, resp.Status)
	}
}

func TestTakenPort(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s := testSettings("http://127.0.0.1:1")
	s.ports[auditName] = l.Addr().(*net.TCPAddr).Port
	_, err = start(s)
	want := fmt.Sprintf("service audit: %s is taken", l.Addr())
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Fatalf("error %v, want %q in it", err, want)
	}
}

// The example folder says where the services run; it and the program must agree.
func TestExamplesNameOurPorts(t *testing.T) {
	t.Parallel()
	file, err := os.Open(filepath.Join("..", "..", "deploy", "examples", "bookinfo", "services.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	all, err := io.ReadAll(file)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]int{}
	for doc := range strings.SplitSeq(string(all), "\n---\n") {
		var slice discoveryv1.EndpointSlice
		if err := yaml.Unmarshal([]byte(doc), &slice); err != nil {
			t.Fatal(err)
		}
		if slice.Kind == "EndpointSlice" {
			got[slice.Labels[discoveryv1.LabelServiceName]] = int(*slice.Ports[0].Port)
		}
	}
	for name, port := range defaultSettings().ports {
		if got[name] != port {
			t.Errorf("services.yaml sends %s to port %d, it listens on %d", name, got[name], port)
		}
		delete(got, name)
	}
	if len(got) > 0 {
		t.Errorf("services.yaml names services that do not exist: %v", got)
	}
}
