package node

import (
	"bytes"
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

func TestImageName(t *testing.T) {
	for image, want := range map[string]string{
		"web": "web", "web:v1": "web", "example.com:5000/team/web:v1": "web", "example.com/web@sha256:ab": "web", "web:v1@sha256:ab": "web",
	} {
		if got := ImageName(image); got != want {
			t.Errorf("%s: %s, want %s", image, got, want)
		}
	}
}

func TestImages(t *testing.T) {
	images := Images{Folder: filepath.Join(t.TempDir(), "images")}
	folder := t.TempDir()
	for name, mode := range map[string]os.FileMode{"one": 0o755, "two": 0o755, "text": 0o644} {
		if err := os.WriteFile(filepath.Join(folder, name), nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	for _, program := range []string{"one", "two"} { // the second takes the place of the first
		if err := images.Load("example.com/web:v1", filepath.Join(folder, program)); err != nil {
			t.Fatal(err)
		}
		if got, err := images.program("other.example/web:v2"); err != nil || filepath.Base(got) != program {
			t.Errorf("web is %s, error %v, want %s", got, err, program)
		}
	}
	for name, test := range map[string]struct{ image, program string }{
		"not executable": {"web", "text"}, "not there": {"web", "none"}, "a folder": {"web", "."}, "no name": {"", "one"}, "odd name": {"a b", "one"},
	} {
		if err := images.Load(test.image, filepath.Join(folder, test.program)); err == nil {
			t.Errorf("%s: loaded", name)
		}
	}
	if _, err := images.program("none"); err == nil || !strings.Contains(err.Error(), ErrNoImage.Error()) {
		t.Errorf("an image that is not loaded: error %v", err)
	}
}

func TestLog(t *testing.T) {
	log, err := newLogFile(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"one\ntw", "o\n", "\nthree\n", "no end"} {
		if _, err := log.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	read := func(query string) string {
		t.Helper()
		values, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		q, err := parseLogQuery(values)
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if err := copyLog(context.Background(), &out, log, q); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	if got := read(""); got != "one\ntwo\n\nthree\n" {
		t.Errorf("before the end: %q", got)
	}
	log.Close()
	for query, want := range map[string]string{
		"":                                "one\ntwo\n\nthree\nno end\n",
		"follow=true":                     "one\ntwo\n\nthree\nno end\n",
		"tailLines=2":                     "three\nno end\n",
		"tailLines=0":                     "",
		"tailLines=99":                    "one\ntwo\n\nthree\nno end\n",
		"limitBytes=6":                    "one\ntw",
		"sinceSeconds=60":                 "one\ntwo\n\nthree\nno end\n",
		"sinceTime=2999-01-01T00:00:00Z":  "",
		"tailLines=1&limitBytes=2":        "no",
		"tailLines=1&sinceSeconds=999999": "no end\n",
	} {
		if got := read(query); got != want {
			t.Errorf("%s: %q, want %q", query, got, want)
		}
	}
	line, _, _ := strings.Cut(read("timestamps=true&tailLines=1"), " ")
	if _, err := time.Parse(time.RFC3339Nano, line); err != nil {
		t.Error(err)
	}
	for _, query := range []string{"tailLines=x", "sinceTime=yesterday", "limitBytes=x", "sinceSeconds=x"} {
		values, _ := url.ParseQuery(query)
		if _, err := parseLogQuery(values); err == nil {
			t.Errorf("%s was understood", query)
		}
	}
}

func TestLogIsFollowed(t *testing.T) {
	log, err := newLogFile(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	lines := make(chan string)
	go func() {
		_ = copyLog(context.Background(), writerFunc(func(text []byte) (int, error) {
			lines <- string(text)
			return len(text), nil
		}), log, logQuery{follow: true, tail: -1, limit: -1})
		close(lines)
	}()
	for _, line := range []string{"one\n", "two\n"} {
		_, _ = log.Write([]byte(line))
		if got := <-lines; got != line {
			t.Errorf("followed %q, want %q", got, line)
		}
	}
	log.Close()
	if got, open := <-lines; open {
		t.Errorf("after the end: %q", got)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(text []byte) (int, error) { return f(text) }

func TestPhase(t *testing.T) {
	state := func(words string) []corev1.ContainerStatus {
		var list []corev1.ContainerStatus
		for _, word := range strings.Fields(words) {
			var c corev1.ContainerStatus
			ended := func(code int32) corev1.ContainerState {
				return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code}}
			}
			switch word {
			case "running":
				c.State.Running = &corev1.ContainerStateRunning{}
			case "waiting":
				c.State.Waiting = &corev1.ContainerStateWaiting{}
			case "crashing":
				c.State.Waiting, c.LastTerminationState = &corev1.ContainerStateWaiting{}, ended(1)
			case "done":
				c.State = ended(0)
			case "failed":
				c.State = ended(1)
			}
			list = append(list, c)
		}
		return list
	}
	for name, test := range map[string]struct {
		containers string
		policy     corev1.RestartPolicy
		waits      bool // for its init containers
		want       corev1.PodPhase
	}{
		"init":                   {"waiting", corev1.RestartPolicyAlways, true, corev1.PodPending},
		"one not yet":            {"running waiting", corev1.RestartPolicyAlways, false, corev1.PodPending},
		"running":                {"running running", corev1.RestartPolicyAlways, false, corev1.PodRunning},
		"one crashing":           {"running crashing", corev1.RestartPolicyAlways, false, corev1.PodRunning},
		"between runs":           {"done", corev1.RestartPolicyAlways, false, corev1.PodRunning},
		"job done":               {"done done", corev1.RestartPolicyNever, false, corev1.PodSucceeded},
		"job goes on":            {"done running", corev1.RestartPolicyNever, false, corev1.PodRunning},
		"job failed":             {"done failed", corev1.RestartPolicyNever, false, corev1.PodFailed},
		"job failed, once again": {"done failed", corev1.RestartPolicyOnFailure, false, corev1.PodRunning},
	} {
		if got := phase(state(test.containers), test.policy, !test.waits); got != test.want {
			t.Errorf("%s: %s, want %s", name, got, test.want)
		}
	}
}

func TestPrivileges(t *testing.T) {
	number := func(n int64) *int64 { return &n }
	yes, no := true, false
	for name, test := range map[string]struct {
		pod     *corev1.PodSecurityContext
		own     *corev1.SecurityContext
		want    string // user:group
		wantErr bool
	}{
		"root":                   {want: "0:0"},
		"the pod's":              {pod: &corev1.PodSecurityContext{RunAsUser: number(7), RunAsGroup: number(8)}, want: "7:8"},
		"the container's":        {pod: &corev1.PodSecurityContext{RunAsUser: number(7)}, own: &corev1.SecurityContext{RunAsUser: number(9)}, want: "9:0"},
		"not root, but is":       {pod: &corev1.PodSecurityContext{RunAsNonRoot: &yes}, wantErr: true},
		"not root":               {own: &corev1.SecurityContext{RunAsNonRoot: &yes, RunAsUser: number(9)}, want: "9:0"},
		"the container may root": {pod: &corev1.PodSecurityContext{RunAsNonRoot: &yes}, own: &corev1.SecurityContext{RunAsNonRoot: &no}, want: "0:0"},
	} {
		pod := &corev1.Pod{Spec: corev1.PodSpec{SecurityContext: test.pod}}
		got, err := privileges(pod, &corev1.Container{SecurityContext: test.own})
		if (err != nil) != test.wantErr {
			t.Errorf("%s: error %v", name, err)
			continue
		}
		if user := fmt.Sprintf("%d:%d", got.User, got.Group); err == nil && user != test.want {
			t.Errorf("%s: %s, want %s", name, user, test.want)
		}
	}
}
