package cluster

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	// In pods of the cluster this program is the image "web".
	if len(os.Args) > 1 && os.Args[1] == "serve" {
		os.Exit(serve())
	}
	os.Exit(m.Run())
}

// start starts a cluster for the test. It knows the images web, which is this program, and tools, which is the host's.
func start(t *testing.T) *Cluster {
	t.Helper()
	Require(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	c, err := Start(t.Context(), Options{Images: map[string]string{"web": self, "tools": "/bin/sh"}, Progress: os.Stderr})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("started in %s", time.Since(began))
	t.Cleanup(func() {
		began := time.Now()
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
		t.Logf("stopped in %s", time.Since(began))
	})
	return c
}

// newNamespace makes a namespace that is removed with the test.
func newNamespace(t *testing.T, c *Cluster) namespace {
	t.Helper()
	_, name, _ := strings.Cut(t.Name(), "/")
	name = strings.ToLower(strings.ReplaceAll(name, "_", "-"))
	n := namespace{t: t, cluster: c, name: name}
	n.kubectl("create", "namespace", name)
	t.Cleanup(func() {
		if t.Failed() {
			n.explain()
		}
		// Others need not wait for the end of its pods.
		if _, err := c.Kubectl(context.Background(), "delete", "namespace", name, "--wait=false"); err != nil {
			t.Error(err)
		}
	})
	// Pods need the account, which a controller makes.
	eventually(t, "the default service account", func() error {
		_, err := c.Kubectl(t.Context(), "get", "serviceaccount", "default", "-n", name)
		return err
	})
	return n
}

// namespace runs kubectl in a namespace.
type namespace struct {
	t       *testing.T
	cluster *Cluster
	name    string
}

// kubectl returns what kubectl writes, and fails the test if kubectl does.
func (n namespace) kubectl(arguments ...string) string {
	n.t.Helper()
	output, err := n.try(arguments...)
	if err != nil {
		n.t.Fatal(err)
	}
	return output
}

func (n namespace) try(arguments ...string) (string, error) {
	output, err := n.cluster.Kubectl(n.t.Context(), append([]string{"-n", n.name}, arguments...)...)
	return strings.TrimSpace(output), err
}

// apply applies manifests.
func (n namespace) apply(manifests string) {
	n.t.Helper()
	if _, err := n.cluster.KubectlInput(n.t.Context(), manifests, "-n", n.name, "apply", "-f", "-"); err != nil {
		n.t.Fatal(err)
	}
}

// get returns a field of an object, or of a list ("pods -l app=web"), as kubectl's jsonpath gives it.
func (n namespace) get(object, path string) string {
	n.t.Helper()
	return n.kubectl(append(append([]string{"get"}, strings.Fields(object)...), "-o", "jsonpath={"+path+"}")...)
}

// wait waits until an object fulfils what kubectl wait is told.
func (n namespace) wait(object, condition string) {
	n.t.Helper()
	n.kubectl("wait", object, "--for="+condition, "--timeout=60s")
}

// shell runs a script in a pod.
func (n namespace) shell(pod, script string) string {
	n.t.Helper()
	return n.kubectl("exec", pod, "--", "sh", "-c", script)
}

// follow follows a pod's log. It returns the first line, and a function that waits for the end and returns the rest.
func (n namespace) follow(pod string) (first string, rest func() string) {
	n.t.Helper()
	cmd := exec.CommandContext(n.t.Context(), n.cluster.info.Kubectl, "--kubeconfig", n.cluster.Kubeconfig(), "-n", n.name, "logs", "--follow", pod)
	output, err := cmd.StdoutPipe()
	if err != nil {
		n.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	reader := bufio.NewReader(output)
	if first, err = reader.ReadString('\n'); err != nil {
		n.t.Fatalf("log of %s: %q, %v", pod, first, err)
	}
	return first, func() string {
		text, err := io.ReadAll(reader)
		if err == nil {
			err = cmd.Wait()
		}
		if err != nil {
			n.t.Errorf("log of %s: %v", pod, err)
		}
		return string(text)
	}
}

// explain logs what there is to know after a failure.
func (n namespace) explain() {
	for _, arguments := range [][]string{{"get", "all", "-o", "wide"}, {"get", "events", "--sort-by=.lastTimestamp"}, {"describe", "pods"}} {
		output, err := n.cluster.Kubectl(context.Background(), append([]string{"-n", n.name}, arguments...)...)
		n.t.Logf("kubectl %s\n%s%v", strings.Join(arguments, " "), output, err)
	}
}

// eventually waits until check succeeds.
func eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	deadline := time.NewTimer(60 * time.Second)
	defer deadline.Stop()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-ticker.C:
		case <-deadline.C:
			t.Fatalf("%s: %v", what, err)
		}
	}
}

// code returns the exit code of a command, 0 if it succeeded.
func code(err error) int {
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode()
	}
	return 0
}
