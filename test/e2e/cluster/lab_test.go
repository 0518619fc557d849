package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

const (
	// requireVariable makes the tests fail where they would be skipped, if it is "required".
	requireVariable = "GATEHOUSE_CLUSTER"
	// stateVariable names the folder where the cluster keeps its logs, which else go with it.
	stateVariable = "GATEHOUSE_E2E_STATE"
	// repository is the root of this repository, seen from this package.
	repository = "../../.."
	// patience is how long something may take that takes seconds at the most.
	patience = time.Minute
)

// lab is a cluster in which the gateway is installed.
type lab struct {
	folder   string // of what is built
	state    string // the cluster's folder
	program  string // gatehouse-cluster
	lifeline io.Closer
	kubectl  string
	config   string // path of the kubeconfig
	rest     *rest.Config
	kube     *kubernetes.Clientset
	dynamic  dynamic.Interface
	// secretReads is how often somebody listed or watched Secrets, other than one by its name, before the gateway was installed.
	secretReads float64
	took        string // what the start took
}

// errCannot says that this machine cannot run a cluster, or not without minutes of building.
var errCannot = errors.New("no cluster can be started")

// need starts the cluster, which ends with the test, or skips the test.
func need(t *testing.T) *lab {
	t.Helper()
	l, err := startLab()
	switch {
	case errors.Is(err, errCannot) && os.Getenv(requireVariable) != "required":
		t.Skip(err)
	case err != nil:
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.stop(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func startLab() (l *lab, err error) {
	began := time.Now()
	if err := likely(); err != nil {
		return nil, err
	}
	l = &lab{}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.stop())
			l = nil
		}
	}()
	if l.folder, err = os.MkdirTemp("", "gatehouse-e2e-"); err != nil {
		return l, err
	}
	l.program = filepath.Join(l.folder, "gatehouse-cluster")
	if err := goBuild(filepath.Join(repository, "test", "cluster"), l.program, "./cmd/gatehouse-cluster", "-trimpath", "-buildvcs=false",
		"-ldflags=-s -w"); err != nil {
		return l, err
	}
	if err := l.possible(); err != nil {
		return l, err
	}
	images := map[string]string{"gatehouse": "./cmd/gatehouse", "gatehouse-proxy": "./cmd/gatehouse-proxy", "echo": "./test/e2e/cluster/echo"}
	for name, pkg := range images {
		if err := goBuild(repository, filepath.Join(l.folder, name), pkg, "-pgo=off"); err != nil {
			return l, err
		}
	}
	built := time.Now()
	if err := l.up(images); err != nil {
		return l, err
	}
	up := time.Now()
	if err := l.install(); err != nil {
		return l, err
	}
	l.took = fmt.Sprintf("programs built in %.1fs, cluster up in %.1fs, gateway installed in %.1fs", built.Sub(began).Seconds(),
		up.Sub(built).Seconds(), time.Since(up).Seconds())
	return l, nil
}

// likely says what can be said before anything is built, so that a machine without a control plane does not build for a minute to learn that.
func likely() error {
	if os.Getenv(requireVariable) == "required" {
		return nil
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("%w: it needs root: run it with sudo, or as root in a container", errCannot)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return fmt.Errorf("%w: %w", errCannot, err)
	}
	if planes, err := filepath.Glob(filepath.Join(cache, "gatehouse", "cluster", "*", "controlplane")); err != nil || len(planes) == 0 {
		return fmt.Errorf("%w: its control plane is not built: make cluster-up builds it, which takes minutes, once", errCannot)
	}
	return nil
}

// goBuild builds a program that needs no C library: the roots of containers have none of their own.
func goBuild(dir, output, pkg string, flags ...string) error {
	cmd := exec.Command("go", append(append([]string{"build", "-o", output}, flags...), pkg)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", cmd, err, out)
	}
	return nil
}

// possible says why no cluster can be started here. It builds the control plane if tests must not be skipped.
func (l *lab) possible() error {
	if out, err := exec.Command(l.program, "check").CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", errCannot, bytes.TrimSpace(out))
	}
	args := []string{"build", "--check"}
	if os.Getenv(requireVariable) == "required" {
		args = args[:1]
	}
	if out, err := exec.Command(l.program, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", errCannot, bytes.TrimSpace(out))
	}
	return nil
}

// up starts the cluster. It ends with this process, however that ends: the kernel closes the lifeline.
func (l *lab) up(images map[string]string) error {
	if l.state = os.Getenv(stateVariable); l.state == "" {
		l.state = filepath.Join(l.folder, "cluster")
	}
	reading, writing, err := os.Pipe()
	if err != nil {
		return err
	}
	defer reading.Close()
	l.lifeline = writing
	args := []string{"up", "--state", l.state, "--lifeline"}
	for name := range images {
		args = append(args, "--image", name+"="+filepath.Join(l.folder, name))
	}
	cmd := exec.Command(l.program, args...)
	cmd.Stdin = reading
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("the cluster does not start: %w\n%s", err, out)
	}
	text, err := os.ReadFile(filepath.Join(l.state, "cluster.json"))
	if err != nil {
		return err
	}
	var info struct{ Kubeconfig, Kubectl string }
	if err := json.Unmarshal(text, &info); err != nil {
		return fmt.Errorf("cluster.json: %w", err)
	}
	l.config, l.kubectl = info.Kubeconfig, info.Kubectl
	if l.rest, err = clientcmd.BuildConfigFromFlags("", l.config); err != nil {
		return err
	}
	l.rest.QPS = -1
	if l.kube, err = kubernetes.NewForConfig(l.rest); err != nil {
		return err
	}
	l.dynamic, err = dynamic.NewForConfig(l.rest)
	return err
}

// install does what a user does: the custom resources of the experimental channel, then the gateway.
func (l *lab) install() error {
	cmd := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/gateway-api")
	cmd.Dir = repository
	module, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("%s: %w", cmd, err)
	}
	files, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(module)), "config", "crd", "experimental", "gateway.networking.*.yaml"))
	if err != nil || len(files) == 0 {
		return fmt.Errorf("the module of Gateway API has no custom resources: %w", err)
	}
	slices.Sort(files)
	args := []string{"apply", "--server-side"}
	for _, file := range files {
		args = append(args, "-f", file)
	}
	if _, err := l.kubectlDo(args...); err != nil {
		return err
	}
	if l.secretReads, err = l.countSecretReads(context.Background()); err != nil {
		return err
	}
	if _, err := l.kubectlDo("apply", "--server-side", "-f", filepath.Join(repository, "deploy", "install.yaml")); err != nil {
		return err
	}
	_, err = l.kubectlDo("wait", "--for=condition=Accepted", "gatewayclass/gatehouse", "--timeout=60s")
	return err
}

func (l *lab) kubectlDo(args ...string) (string, error) {
	cmd := exec.Command(l.kubectl, append([]string{"--kubeconfig", l.config}, args...)...)
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problems
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(problems.Bytes()))
	}
	return out.String(), nil
}

// stop ends the cluster and removes what was built.
func (l *lab) stop() error {
	var err error
	if l.lifeline != nil {
		if out, downErr := exec.Command(l.program, "down", "--state", l.state).CombinedOutput(); downErr != nil {
			err = fmt.Errorf("the cluster does not end: %w\n%s", downErr, out)
		}
		err = errors.Join(err, l.lifeline.Close())
	}
	return errors.Join(err, os.RemoveAll(l.folder))
}
