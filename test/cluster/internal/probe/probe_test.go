package probe

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// portOf returns the port of an address.
func portOf(t *testing.T, address string) int {
	t.Helper()
	_, text, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return port
}

func TestCheck(t *testing.T) {
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/teapot":
			w.WriteHeader(http.StatusTeapot)
		case r.URL.Path == "/moved":
			http.Redirect(w, r, "/teapot", http.StatusFound)
		case r.URL.Path == "/named" && (r.Host != "example.com" || r.Header.Get("A") != "b"):
			w.WriteHeader(http.StatusBadRequest)
		}
	}))
	t.Cleanup(web.Close)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := portOf(t, closed.Addr().String())
	closed.Close()
	port := portOf(t, web.Listener.Addr().String())
	rpc, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	status := health.NewServer()
	status.SetServingStatus("bad", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	grpc_health_v1.RegisterHealthServer(server, status)
	go server.Serve(rpc)
	t.Cleanup(server.Stop)
	rpcPort := int32(portOf(t, rpc.Addr().String()))
	bad := "bad"

	target := Target{Address: "127.0.0.1", Ports: []corev1.ContainerPort{{Name: "web", ContainerPort: int32(port)}},
		Exec: func(_ context.Context, command []string) error {
			if command[0] != "true" {
				return errors.New("exit code 1")
			}
			return nil
		}}
	get := func(path string, port intstr.IntOrString, headers ...corev1.HTTPHeader) corev1.ProbeHandler {
		return corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: path, Port: port, HTTPHeaders: headers}}
	}
	named := intstr.FromString("web")
	for name, test := range map[string]struct {
		handler corev1.ProbeHandler
		wantErr string
	}{
		"http":               {handler: get("/", named)},
		"http by number":     {handler: get("/", intstr.FromInt(port))},
		"http redirect":      {handler: get("/moved", named)},
		"http error":         {handler: get("/teapot", named), wantErr: "418"},
		"http headers":       {handler: get("named", named, corev1.HTTPHeader{Name: "host", Value: "example.com"}, corev1.HTTPHeader{Name: "A", Value: "b"})},
		"http missing port":  {handler: get("/", intstr.FromString("none")), wantErr: "no port named"},
		"http nobody":        {handler: get("/", intstr.FromInt(nobody)), wantErr: "refused"},
		"tcp":                {handler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: named}}},
		"tcp nobody":         {handler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt(nobody)}}, wantErr: "refused"},
		"grpc":               {handler: corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: rpcPort}}},
		"grpc not serving":   {handler: corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: rpcPort, Service: &bad}}, wantErr: "NOT_SERVING"},
		"exec":               {handler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"true"}}}},
		"exec fails":         {handler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"false"}}}, wantErr: "exit code 1"},
		"nothing to be done": {wantErr: "no way"},
	} {
		t.Run(name, func(t *testing.T) {
			err := target.Check(t.Context(), &corev1.Probe{ProbeHandler: test.handler, TimeoutSeconds: 5})
			if test.wantErr == "" && err != nil {
				t.Fatal(err)
			}
			if test.wantErr != "" && (err == nil || !strings.Contains(err.Error(), test.wantErr)) {
				t.Fatalf("error %v, want one with %q", err, test.wantErr)
			}
		})
	}
}

func TestCounter(t *testing.T) {
	// Answers: + and - are due, p and m are not. States that are reported: Y and N.
	for name, test := range map[string]struct {
		success, failure int32
		answers, want    string
	}{
		"ready at once":           {1, 3, "+", "Y"},
		"reported once":           {1, 3, "+++", "Y  "},
		"fails at the threshold":  {1, 3, "+---", "Y  N"},
		"fails from the start":    {1, 3, "---", "  N"},
		"a success starts anew":   {1, 3, "--+--", "  Y  "},
		"two successes":           {2, 1, "+-++", " N Y"},
		"early misses do not":     {1, 2, "-mmm-", "    N"},
		"early successes count":   {2, 3, "pp", " Y"},
		"comes back":              {1, 1, "+-+", "YNY"},
		"never succeeds, reports": {1, 1, "--", "N "},
	} {
		c := counter{success: test.success, failure: test.failure}
		got := ""
		for _, answer := range test.answers {
			changed, ok := c.count(answer == '+' || answer == 'p', answer == '+' || answer == '-')
			switch {
			case changed && ok:
				got += "Y"
			case changed:
				got += "N"
			default:
				got += " "
			}
		}
		if got != test.want {
			t.Errorf("%s: %q gave %q, want %q", name, test.answers, got, test.want)
		}
	}
}

func TestWatchReportsEagerly(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	asked := 0
	reported := false
	// The period is longer than the test may take: only additional questions can find the success.
	Watch(ctx, &corev1.Probe{PeriodSeconds: 60}, func(context.Context) error {
		if asked++; asked < 3 {
			return errors.New("not yet")
		}
		return nil
	}, func(ok bool, err error) {
		reported = ok && err == nil
		cancel()
	})
	if !reported {
		t.Fatalf("asked %d times, no success reported", asked)
	}
}
