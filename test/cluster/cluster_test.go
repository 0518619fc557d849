package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestCluster tries in one cluster what its users rely on, each in a namespace of its own.
func TestCluster(t *testing.T) {
	c := start(t)
	for name, test := range map[string]func(*testing.T, *Cluster, namespace){
		"service is reached":       serviceIsReached,
		"rollout":                  rollout,
		"readiness":                readiness,
		"restarts and logs":        restartsAndLogs,
		"commands":                 commands,
		"tokens":                   tokens,
		"configuration":            configuration,
		"security":                 security,
		"termination":              termination,
		"init containers and jobs": initContainersAndJobs,
		"static addresses":         staticAddresses,
		"names":                    names,
		"load image":               loadImage,
		"two clusters":             twoClusters,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, c, newNamespace(t, c))
		})
	}
}

// webDeployment is a Deployment of the image web behind a load balancer, running as nobody in particular on port 80.
const webDeployment = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 5
      securityContext: {sysctls: [{name: net.ipv4.ip_unprivileged_port_start, value: "0"}]}
      containers:
      - name: web
        image: registry.example/team/web:v1
        args: [serve]
        env: [{name: VERSION, value: "1"}]
        ports: [{containerPort: 80, name: http}]
        readinessProbe: {httpGet: {port: http, path: /ready}, periodSeconds: 1, failureThreshold: 1}
        securityContext:
          {runAsUser: 65532, runAsNonRoot: true, allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: LoadBalancer
  selector: {app: web}
  ports: [{port: 8080, targetPort: http, name: tcp}, {port: 8080, targetPort: 80, protocol: UDP, name: udp}]
`

// toolPod is a pod that does nothing, for running commands in.
const toolPod = `
apiVersion: v1
kind: Pod
metadata: {name: tools, labels: {app: tools}}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: tools, image: tools, command: [sleep, infinity]}]
`

// get returns the body of a page.
func get(url string) (string, error) {
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", url, answer.Status)
	}
	return string(body), err
}

func post(t *testing.T, url string) {
	t.Helper()
	answer, err := http.Post(url, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
}

// ingress returns a load balancer's address when it has one.
func (n namespace) ingress(service string) string {
	n.t.Helper()
	n.wait("service/"+service, "jsonpath={.status.loadBalancer.ingress[0].ip}")
	return n.get("service/"+service, ".status.loadBalancer.ingress[0].ip")
}

func serviceIsReached(t *testing.T, c *Cluster, n namespace) {
	n.apply(webDeployment)
	n.apply(toolPod)
	n.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
	n.wait("pod/tools", "condition=Ready")
	address := n.ingress("web")
	if a := netip.MustParseAddr(address); !c.LoadBalancers().Contains(a) || c.StaticAddresses().Contains(a) {
		t.Errorf("load balancer has %s, which is not one of %s that are given unasked", address, c.LoadBalancers())
	}
	fromHost := map[string]string{
		"load balancer":   address + ":8080",
		"cluster address": n.get("service/web", ".spec.clusterIP") + ":8080",
		"node port":       net.JoinHostPort(c.Node().String(), n.get("service/web", ".spec.ports[0].nodePort")),
	}
	for name, target := range fromHost {
		eventually(t, name+" from the host", func() error { _, err := get("http://" + target); return err })
	}
	pods := strings.Fields(n.get("pods -l app=web", ".items[*].metadata.name"))
	ip := n.get("pod/tools", ".status.podIP")
	for _, target := range []string{"web:8080", "web." + n.name + ".svc.cluster.local:8080", address + ":8080"} {
		seen := map[string]bool{}
		for range 20 {
			answer := strings.Fields(n.shell("tools", "curl -sS --max-time 5 http://"+target))
			if len(answer) != 3 || !slices.Contains(pods, answer[0]) {
				t.Fatalf("%s answers %q, want a pod of %v", target, answer, pods)
			}
			// Within the cluster nothing is masqueraded.
			if !strings.HasPrefix(target, address) && answer[2] != ip {
				t.Errorf("%s: the server sees %s, want the pod's own %s", target, answer[2], ip)
			}
			if seen[answer[0]] = true; len(seen) == len(pods) {
				break
			}
		}
		if len(seen) != len(pods) {
			t.Errorf("%s reaches %v of %v", target, seen, pods)
		}
	}
	udp, err := net.DialTimeout("udp", address+":8080", time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	eventually(t, "the UDP port of the same address", func() error {
		if _, err := udp.Write([]byte("who")); err != nil {
			return err
		}
		buffer := make([]byte, 100)
		_ = udp.SetReadDeadline(time.Now().Add(time.Second))
		size, err := udp.Read(buffer)
		if err == nil && !slices.Contains(pods, string(buffer[:size])) {
			err = fmt.Errorf("answer %q", buffer[:size])
		}
		return err
	})
}

func rollout(t *testing.T, _ *Cluster, n namespace) {
	n.apply(webDeployment)
	n.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
	target := "http://" + n.ingress("web") + ":8080"
	eventually(t, "first version", func() error { _, err := get(target); return err })
	n.kubectl("set", "env", "deployment/web", "VERSION=2")
	n.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
	eventually(t, "second version alone", func() error {
		for range 10 {
			if body, err := get(target); err != nil || strings.Fields(body)[1] != "2" {
				return fmt.Errorf("%q, %w", body, err)
			}
		}
		return nil
	})
	n.kubectl("scale", "deployment/web", "--replicas=0")
	n.kubectl("wait", "pod", "-l", "app=web", "--for=delete", "--timeout=60s")
	eventually(t, "no endpoint", func() error {
		if body, err := get(target); err == nil {
			return errors.New("still answers " + body)
		}
		return nil
	})
}

func readiness(t *testing.T, _ *Cluster, n namespace) {
	n.apply(webDeployment)
	n.kubectl("scale", "deployment/web", "--replicas=1")
	n.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
	ip := n.get("pods -l app=web", ".items[0].status.podIP")
	ready := func() string {
		return n.get("endpointslices -l kubernetes.io/service-name=web", ".items[*].endpoints[*].conditions.ready")
	}
	post(t, "http://"+ip+"/unready")
	n.kubectl("wait", "pod", "-l", "app=web", "--for=condition=Ready=false", "--timeout=60s")
	eventually(t, "not ready in the EndpointSlice", func() error {
		if got := ready(); got != "false" {
			return errors.New(got)
		}
		return nil
	})
	post(t, "http://"+ip+"/ready")
	n.kubectl("wait", "pod", "-l", "app=web", "--for=condition=Ready", "--timeout=60s")
	eventually(t, "ready in the EndpointSlice", func() error {
		if got := ready(); got != "true" {
			return errors.New(got)
		}
		return nil
	})
}

func restartsAndLogs(t *testing.T, _ *Cluster, n namespace) {
	n.apply(`
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  terminationGracePeriodSeconds: 10
  containers:
  - name: web
    image: web
    args: [serve, -listen, ":8000"]
    startupProbe: {tcpSocket: {port: 8000}, periodSeconds: 1, failureThreshold: 30}
    livenessProbe: {httpGet: {port: 8000, path: /ready}, periodSeconds: 1, failureThreshold: 2}
    readinessProbe: {exec: {command: [test, -e, /image]}, periodSeconds: 1}
`)
	n.wait("pod/web", "condition=Ready")
	target := "http://" + n.get("pod/web", ".status.podIP") + ":8000"
	post(t, target+"/exit")
	n.wait("pod/web", "jsonpath={.status.containerStatuses[0].restartCount}=1")
	n.wait("pod/web", "condition=Ready")
	if got := n.get("pod/web", ".status.containerStatuses[0].lastState.terminated.exitCode"); got != "3" {
		t.Errorf("exit code of the last run: %s, want 3", got)
	}
	if got := n.kubectl("logs", "web", "--previous"); got != "serving as 0\nexit 3" {
		t.Errorf("log of the run before: %q", got)
	}
	if got := n.kubectl("logs", "web", "--tail=1", "--timestamps"); !strings.HasSuffix(got, "Z serving as 0") || strings.Contains(got, "\n") {
		t.Errorf("last line: %q", got)
	}
	// A container that is not alive is restarted too. Its log can be followed until it ends.
	first, rest := n.follow("web")
	post(t, target+"/unready")
	n.wait("pod/web", "jsonpath={.status.containerStatuses[0].restartCount}=2")
	if got, want := first+rest(), "serving as 0\nterminated\n"; got != want {
		t.Errorf("followed log %q, want %q", got, want)
	}
}

func commands(t *testing.T, c *Cluster, n namespace) {
	n.apply(toolPod)
	n.wait("pod/tools", "condition=Ready")
	if _, err := n.try("exec", "tools", "--", "sh", "-c", "exit 7"); code(err) != 7 {
		t.Errorf("exit code %d, want 7 (%v)", code(err), err)
	}
	output, err := c.KubectlInput(t.Context(), "from here", "-n", n.name, "exec", "-i", "tools", "--", "cat")
	if err != nil || output != "from here" {
		t.Errorf("cat gave %q, error %v", output, err)
	}
	if got := n.shell("tools", "hostname; cat /proc/1/comm; ls /proc | grep -c '^[0-9]'"); !strings.HasPrefix(got, "tools\nsleep\n") {
		t.Errorf("the command sees %q, want the container's own host name and processes", got)
	}
}

func tokens(t *testing.T, c *Cluster, n namespace) {
	n.apply(`
apiVersion: v1
kind: Pod
metadata: {name: tools}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: tools
    image: tools
    command: [sleep, infinity]
    securityContext: {runAsUser: 1000}
    volumeMounts: [{name: token, mountPath: /var/run/secrets/gate}]
  volumes:
  - name: token
    projected:
      sources:
      - serviceAccountToken: {audience: gate.example, expirationSeconds: 600, path: sub/token}
      - downwardAPI: {items: [{path: name, fieldRef: {fieldPath: metadata.name}}]}
`)
	n.wait("pod/tools", "condition=Ready")
	if got := n.shell("tools", "cat /var/run/secrets/gate/name"); got != "tools" {
		t.Errorf("downward API gives %q", got)
	}
	review := fmt.Sprintf(`{"apiVersion":"authentication.k8s.io/v1","kind":"TokenReview","spec":{"token":%q,"audiences":["gate.example"]}}`,
		n.shell("tools", "cat /var/run/secrets/gate/sub/token"))
	output, err := c.KubectlInput(t.Context(), review, "create", "-f", "-", "-o", "json")
	if err != nil {
		t.Fatal(err)
	}
	var answer struct {
		Status struct {
			Authenticated bool
			Audiences     []string
			User          struct{ Username string }
		}
	}
	if err := json.Unmarshal([]byte(output), &answer); err != nil {
		t.Fatal(err)
	}
	s, user := answer.Status, "system:serviceaccount:"+n.name+":default"
	if !s.Authenticated || s.User.Username != user || !slices.Equal(s.Audiences, []string{"gate.example"}) {
		t.Errorf("token review says %+v", s)
	}
	// The account's ordinary token reaches the API server by its Service and the certificate that is mounted beside it.
	if got := n.shell("tools", `cd /var/run/secrets/kubernetes.io/serviceaccount &&
		curl -sS --cacert ca.crt -H "Authorization: Bearer $(cat token)" https://kubernetes.default.svc/version`); !strings.Contains(got, `"v1.37.1"`) {
		t.Errorf("the API server answers %q", got)
	}
}

func configuration(t *testing.T, _ *Cluster, n namespace) {
	n.kubectl("create", "configmap", "settings", "--from-literal=color=blue", "--from-literal=shape=round")
	n.kubectl("create", "secret", "generic", "keys", "--from-literal=key=hidden")
	n.apply(`
apiVersion: v1
kind: Pod
metadata: {name: tools, labels: {tier: front}}
spec:
  terminationGracePeriodSeconds: 0
  securityContext: {fsGroup: 2000, runAsUser: 1000}
  containers:
  - name: tools
    image: tools
    command: [sh, -c, 'echo "$0 $1"; exec sleep infinity', $(COLOR), $(NONE)]
    resources: {limits: {cpu: 500m, memory: 64Mi}}
    env:
    - {name: COLOR, valueFrom: {configMapKeyRef: {name: settings, key: color}}}
    - {name: KEY, valueFrom: {secretKeyRef: {name: keys, key: key}}}
    - {name: MISSING, valueFrom: {secretKeyRef: {name: keys, key: none, optional: true}}}
    - {name: TIER, valueFrom: {fieldRef: {fieldPath: "metadata.labels['tier']"}}}
    - {name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
    - {name: CPU, valueFrom: {resourceFieldRef: {resource: limits.cpu, divisor: 1m}}}
    - {name: ALL, value: $(COLOR)-$(TIER)}
    envFrom: [{prefix: S_, configMapRef: {name: settings}}]
    volumeMounts:
    - {name: settings, mountPath: /etc/settings}
    - {name: settings, mountPath: /etc/one/color, subPath: color}
    - {name: keys, mountPath: /etc/keys}
    - {name: scratch, mountPath: /scratch}
  volumes:
  - {name: settings, configMap: {name: settings}}
  - {name: keys, secret: {secretName: keys, defaultMode: 0400, items: [{key: key, path: deep/key}]}}
  - {name: scratch, emptyDir: {}}
`)
	n.wait("pod/tools", "condition=Ready")
	for script, want := range map[string]string{
		`echo "$COLOR $KEY ${MISSING-unset} $TIER $CPU $ALL $S_shape"`: "blue hidden unset front 500 blue-front round",
		`echo "$IP"`:              n.get("pod/tools", ".status.podIP"),
		"cat /etc/settings/color": "blue",
		"cat /etc/one/color":      "blue",
		"cat /etc/keys/deep/key":  "hidden",
		"id -G":                   "0 2000",
		"echo x > /scratch/x; id -u; ls -ld /scratch/x | cut -d' ' -f4": "1000\n2000",
	} {
		if got := n.shell("tools", script); got != want {
			t.Errorf("%s: %q, want %q", script, got, want)
		}
	}
	if got := n.kubectl("logs", "tools"); got != "blue $(NONE)" {
		t.Errorf("the command was expanded to %q", got)
	}
	n.kubectl("patch", "configmap", "settings", "-p", `{"data":{"color":"red","size":"big"}}`)
	eventually(t, "the changed volume", func() error {
		if got := n.shell("tools", "cat /etc/settings/color /etc/settings/size 2>&1 || true"); got != "redbig" {
			return errors.New(got)
		}
		return nil
	})
}

func security(t *testing.T, _ *Cluster, n namespace) {
	n.apply(`
apiVersion: v1
kind: Pod
metadata: {name: tools}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: plain
    image: tools
    command: [sleep, infinity]
  - name: bare
    image: tools
    command: [sleep, infinity]
    securityContext: {capabilities: {drop: [ALL], add: [NET_ADMIN]}, readOnlyRootFilesystem: true, allowPrivilegeEscalation: false}
  - name: user
    image: tools
    command: [sleep, infinity]
    securityContext: {runAsUser: 1000, runAsGroup: 1001}
---
apiVersion: v1
kind: Pod
metadata: {name: root-refused}
spec:
  containers: [{name: tools, image: tools, command: [sleep, infinity], securityContext: {runAsNonRoot: true}}]
---
apiVersion: v1
kind: Pod
metadata: {name: sysctl-refused}
spec:
  securityContext: {sysctls: [{name: kernel.msgmax, value: "1"}]}
  containers: [{name: tools, image: tools, command: [sleep, infinity]}]
---
apiVersion: v1
kind: Pod
metadata: {name: image-missing}
spec:
  containers: [{name: tools, image: example.com/none:v1}]
`)
	n.wait("pod/tools", "condition=Ready")
	status := "grep -E '^(CapEff|NoNewPrivs)' /proc/self/status | tr -d '\\n\\t'"
	for container, test := range map[string]struct{ script, want string }{
		"plain": {status + "; touch /x && echo ' writes'", "CapEff:00000000a80425fbNoNewPrivs:0 writes"},
		"bare":  {status + "; touch /x 2>/dev/null || echo ' refused'", "CapEff:0000000000001000NoNewPrivs:1 refused"},
		"user":  {status + "; echo \" $(id -u) $(id -g)\"", "CapEff:0000000000000000NoNewPrivs:0 1000 1001"},
	} {
		if got := n.kubectl("exec", "tools", "-c", container, "--", "sh", "-c", test.script); got != test.want {
			t.Errorf("%s: %q, want %q", container, got, test.want)
		}
	}
	n.wait("pod/root-refused", "jsonpath={.status.containerStatuses[0].state.waiting.reason}=CreateContainerConfigError")
	n.wait("pod/sysctl-refused", "jsonpath={.status.reason}=SysctlForbidden")
	n.wait("pod/image-missing", "jsonpath={.status.containerStatuses[0].state.waiting.reason}=ErrImagePull")
}

func termination(t *testing.T, _ *Cluster, n namespace) {
	pod := func(name, flags, more string) string {
		return fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %s}
spec:
  terminationGracePeriodSeconds: 30
  containers:
  - name: web
    image: web
    args: [serve, -listen, ":8000"%s]
    ports: [{containerPort: 8000}]
%s---
`, name, flags, more)
	}
	n.apply(pod("polite", "", "    lifecycle: {preStop: {httpGet: {port: 8000, path: /prestop}}}\n") + pod("stubborn", `, "-stubborn"`, ""))
	for _, name := range []string{"polite", "stubborn"} {
		n.wait("pod/"+name, "condition=Ready")
	}
	first, rest := n.follow("polite")
	n.kubectl("delete", "pod", "polite", "--wait", "--timeout=20s")
	if got, want := first+rest(), "serving as 0\nprestop\nterminated\n"; got != want {
		t.Errorf("log %q, want %q", got, want)
	}
	// One that does not end by itself is killed when its time is over.
	began := time.Now()
	n.kubectl("delete", "pod", "stubborn", "--grace-period=2", "--wait", "--timeout=20s")
	if took := time.Since(began); took < 1900*time.Millisecond {
		t.Errorf("it was given %s, want 2s", took)
	}
}

func initContainersAndJobs(t *testing.T, _ *Cluster, n namespace) {
	n.apply(`
apiVersion: batch/v1
kind: Job
metadata: {name: job}
spec:
  backoffLimit: 3
  template:
    spec:
      restartPolicy: OnFailure
      volumes: [{name: data, emptyDir: {}}]
      initContainers:
      - name: first
        image: tools
        command: [sh, -c, 'test -e /data/tried || { touch /data/tried; exit 1; }; echo first >> /data/log']
        volumeMounts: [{name: data, mountPath: /data}]
      - name: sidecar
        image: tools
        restartPolicy: Always
        command: [sh, -c, 'echo sidecar >> /data/log; exec sleep infinity']
        startupProbe: {exec: {command: [grep, sidecar, /data/log]}, periodSeconds: 1, failureThreshold: 30}
        volumeMounts: [{name: data, mountPath: /data}]
      containers:
      - name: main
        image: tools
        command: [sh, -c, 'echo main >> /data/log; cat /data/log']
        volumeMounts: [{name: data, mountPath: /data}]
`)
	n.wait("job/job", "condition=Complete")
	if got, want := n.kubectl("logs", "job/job", "-c", "main"), "first\nsidecar\nmain"; got != want {
		t.Errorf("order %q, want %q", got, want)
	}
	if got := n.get("pods -l job-name=job", ".items[0].status.phase"); got != "Succeeded" {
		t.Errorf("phase %s", got)
	}
	n.apply(`
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: daemon}
spec:
  selector: {matchLabels: {app: daemon}}
  template:
    metadata: {labels: {app: daemon}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{name: tools, image: tools, command: [sleep, infinity]}]
`)
	n.kubectl("rollout", "status", "daemonset/daemon", "--timeout=60s")
}

func staticAddresses(t *testing.T, c *Cluster, n namespace) {
	service := func(name, address string) string {
		return fmt.Sprintf(`
apiVersion: v1
kind: Service
metadata: {name: %s}
spec: {type: LoadBalancer, loadBalancerIP: %s, ports: [{port: 80}]}
---
`, name, address)
	}
	usable, unusable := c.UsableAddress().String(), c.UnusableAddress().String()
	n.apply(service("usable", usable) + service("unusable", unusable))
	if got := n.ingress("usable"); got != usable {
		t.Errorf("asked for %s, has %s", usable, got)
	}
	n.apply(service("second", usable))
	// A later one that gets its address shows that the others were looked at.
	n.apply(service("third", c.UsableAddress().Next().String()))
	n.ingress("third")
	for _, name := range []string{"second", "unusable"} {
		if got := n.get("service/"+name, ".status.loadBalancer.ingress"); got != "" {
			t.Errorf("service %s has %s", name, got)
		}
	}
	n.kubectl("delete", "service", "usable")
	if got := n.ingress("second"); got != usable {
		t.Errorf("after the first was deleted the second has %s, want %s", got, usable)
	}
}

func names(t *testing.T, _ *Cluster, n namespace) {
	n.apply(toolPod)
	n.apply(`
apiVersion: v1
kind: Service
metadata: {name: headless}
spec: {clusterIP: None, selector: {app: tools}, ports: [{port: 80}]}
`)
	n.wait("pod/tools", "condition=Ready")
	ip := n.get("pod/tools", ".status.podIP")
	eventually(t, "the headless Service's name", func() error {
		if got := n.shell("tools", "getent ahostsv4 headless | cut -d' ' -f1 | sort -u"); got != ip {
			return fmt.Errorf("%q, want %s", got, ip)
		}
		return nil
	})
	if _, err := n.try("exec", "tools", "--", "getent", "hosts", "example.com"); code(err) != 2 {
		t.Errorf("a name of the world: exit code %d, want 2, which means that there is none", code(err))
	}
}

func loadImage(t *testing.T, c *Cluster, n namespace) {
	n.apply(fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: late}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: late, image: example.com/late@sha256:%s, command: [sleep, infinity]}]
`, strings.Repeat("0", 64)))
	n.wait("pod/late", "jsonpath={.status.containerStatuses[0].state.waiting.reason}=ErrImagePull")
	if err := c.LoadImage("late", "/bin/sh"); err != nil {
		t.Fatal(err)
	}
	n.wait("pod/late", "condition=Ready")
	if err := c.LoadImage("late", filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a program that is not there was loaded")
	}
}

// twoClusters runs a second cluster beside the first, and ends it by the end of whoever started it.
func twoClusters(t *testing.T, first *Cluster, _ namespace) {
	second, err := Start(t.Context(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := second.Stop(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(second.folder); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("after Stop there is still %s (%v)", second.folder, err)
		}
	})
	if first.LoadBalancers().Overlaps(second.LoadBalancers()) {
		t.Errorf("both clusters have %s", first.LoadBalancers())
	}
	for _, c := range []*Cluster{first, second} {
		if output, err := c.Kubectl(t.Context(), "get", "nodes", "-o", "name"); err != nil || strings.TrimSpace(output) != "node/node" {
			t.Errorf("nodes %q, error %v", output, err)
		}
	}
	text, err := os.ReadFile(filepath.Join(second.folder, "cluster.json"))
	if err != nil {
		t.Fatal(err)
	}
	var info struct{ Pid int }
	if err := json.Unmarshal(text, &info); err != nil {
		t.Fatal(err)
	}
	second.lifeline.Close()
	eventually(t, "the end of the supervisor", func() error {
		stat, err := os.ReadFile("/proc/" + strconv.Itoa(info.Pid) + "/stat")
		if err != nil || strings.Contains(string(stat), ") Z ") {
			return nil
		}
		return errors.New(strings.TrimSpace(string(stat)))
	})
}
