package cluster

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const programmedManifest = `
apiVersion: gatehouse.dev/v1alpha1
kind: GatewayParameters
metadata: {name: taken}
spec: {admin: {port: 8081}, drainSeconds: 1}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: web}
spec:
  gatewayClassName: gatehouse
  infrastructure: {parametersRef: {group: gatehouse.dev, kind: GatewayParameters, name: taken}}
  listeners:
  - {name: http, port: 80, protocol: HTTP}
`

// testProgrammed: nothing is called programmed that does not serve: not a listener whose port cannot be bound, not a generation that a proxy
// has not acknowledged.
func testProgrammed(t *testing.T, l *lab) {
	const namespace = "programmed"
	l.apply(t, "", "apiVersion: v1\nkind: Namespace\nmetadata: {name: "+namespace+"}")
	l.apply(t, namespace, programmedManifest)
	v := visit(l.programmed(t, namespace, "web"), false)

	// The proxy's own port for operators is taken.
	taken := programmedManifest + "  - {name: taken, port: 8081, protocol: HTTP}\n"
	l.apply(t, namespace, taken)
	messages := l.says(t, gatewayV1, "Gateway", namespace, "web",
		want{"listener taken", "Programmed", "False", ""}, want{"listener http", "Programmed", "True", "Programmed"})
	t.Logf("a port that cannot be bound: %q", messages[0])
	v.answers(t, "http://any.test/", http.StatusNotFound)
	l.apply(t, namespace, programmedManifest)
	l.says(t, gatewayV1, "Gateway", namespace, "web", want{"", "Programmed", "True", "Programmed"})

	// A proxy that hears nothing acknowledges nothing.
	proxy := l.proxy(t, namespace)
	if err := proxy.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	goOn := sync.OnceFunc(func() {
		if err := proxy.Signal(syscall.SIGCONT); err != nil {
			t.Error(err)
		}
	})
	defer goOn()
	l.apply(t, namespace, programmedManifest+"  - {name: more, port: 81, protocol: HTTP}\n")
	messages = l.says(t, gatewayV1, "Gateway", namespace, "web", want{"", "Programmed", "False", ""}, want{"listener more", "Programmed", "False", ""})
	t.Logf("a proxy that stands still: %q", messages)
	goOn()
	began := time.Now()
	l.says(t, gatewayV1, "Gateway", namespace, "web", want{"", "Programmed", "True", "Programmed"}, want{"listener more", "Programmed", "True", "Programmed"})
	t.Logf("programmed %s after it went on", time.Since(began).Round(time.Millisecond))
	l.remove(t, gatewayV1, "Gateway", namespace, "web")
}

// proxy finds the process of the one proxy in a namespace: in this machine's /proc, where it is the one whose environment names its Pod.
func (l *lab) proxy(t *testing.T, namespace string) *os.Process {
	t.Helper()
	var pod string
	until(t, func(ctx context.Context) error {
		list, err := l.kube.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{})
		if err == nil && len(list.Items) != 1 {
			err = fmt.Errorf("%d Pods", len(list.Items))
		}
		if err == nil {
			pod = list.Items[0].Name
		}
		return err
	})
	files, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		environment, err := os.ReadFile(file)
		if err != nil || !slices.Contains(strings.Split(string(environment), "\x00"), "POD_NAME="+pod) {
			continue // processes come and go
		}
		folder := filepath.Dir(file)
		if name, err := os.ReadFile(filepath.Join(folder, "comm")); err != nil || strings.TrimSpace(string(name)) != "gatehouse-proxy" {
			continue
		}
		id, err := strconv.Atoi(filepath.Base(folder))
		if err != nil {
			t.Fatal(err)
		}
		process, err := os.FindProcess(id)
		if err != nil {
			t.Fatal(err)
		}
		return process
	}
	t.Fatalf("no process on this machine is the proxy of Pod %s", pod)
	return nil
}
