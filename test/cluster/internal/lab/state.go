package lab

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"

	"gatehouse.dev/gatehouse/test/cluster/internal/node"
)

// Info is what there is to know about a running cluster.
type Info struct {
	// Kubeconfig is an administrator's; Kubectl is a kubectl of the cluster's version.
	Kubeconfig, Kubectl string
	// Pods, Services and LoadBalancers are the addresses of each. Those in OnRequest are given only to Services that ask for one by
	// spec.loadBalancerIP.
	Pods, Services, LoadBalancers, OnRequest netip.Prefix
	// Host and Node are the addresses of the machine as pods see it, and of the node, which has the node ports and the API server.
	Host, Node netip.Addr
	// Pid is the supervisor's, and Started when it started, as /proc/PID/stat tells: together they identify it.
	Pid     int
	Started uint64
}

// State is the folder of a cluster.
type State struct{ Folder string }

func (s State) path(name ...string) string {
	return filepath.Join(append([]string{s.Folder}, name...)...)
}

// Images are the cluster's.
func (s State) Images() node.Images { return node.Images{Folder: s.path("images")} }

// Log is where the supervisor writes.
func (s State) Log() string { return s.path("supervisor.log") }

// ErrNotRunning says that a state folder has no running cluster.
var ErrNotRunning = errors.New("no cluster is running")

// Read returns what is known of the running cluster.
func (s State) Read() (*Info, error) {
	text, err := os.ReadFile(s.path("cluster.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w in %s", ErrNotRunning, s.Folder)
	}
	if err != nil {
		return nil, err
	}
	var info Info
	if err := json.Unmarshal(text, &info); err != nil {
		return nil, fmt.Errorf("%s: %w", s.path("cluster.json"), err)
	}
	if started, err := startTime(info.Pid); err != nil || started != info.Started {
		return nil, fmt.Errorf("%w in %s: its supervisor, process %d, has ended", ErrNotRunning, s.Folder, info.Pid)
	}
	return &info, nil
}

func (s State) write(info *Info) error {
	text, err := json.MarshalIndent(info, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(s.path("cluster.json"), append(text, '\n'), 0o600)
}

// clean removes what an earlier cluster left, but the images, which may have been loaded for the next.
func (s State) clean() error {
	var problems []error
	for _, name := range []string{"cluster.json", "kubeconfig", "bin", "plane", "pods", "supervisor.log"} {
		problems = append(problems, os.RemoveAll(s.path(name)))
	}
	return errors.Join(problems...)
}

// Remove removes the folder's own content, and the folder itself if nothing else is in it.
func (s State) Remove() error {
	if err := errors.Join(s.clean(), os.RemoveAll(s.path("images"))); err != nil {
		return err
	}
	if err := os.Remove(s.Folder); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// startTime returns when a process started, in the kernel's ticks since boot: field 22 of /proc/PID/stat, see proc(5). The second field, a
// name in brackets, may hold anything, so counting begins behind the last bracket. A process that has ended and was not waited for is gone.
func startTime(pid int) (uint64, error) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, err
	}
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	const state, started = 0, 22 - 3 // fields are counted from 1, and two are cut off: the first left is the third
	if len(fields) <= started || string(fields[state]) == "Z" {
		return 0, fs.ErrNotExist
	}
	return strconv.ParseUint(string(fields[started]), 10, 64)
}
