// Command gatehouse-cluster runs a Kubernetes cluster for tests on this machine, without containers. It needs Linux and root.
//
//	gatehouse-cluster up        starts one and says how to use it
//	gatehouse-cluster down      ends it
//	gatehouse-cluster image     makes local programs stand for images
//	gatehouse-cluster build     builds the control plane, which up would do
//	gatehouse-cluster check     says what keeps a cluster from running here
//
// The same program is the cluster's supervisor and, in each container, what the container's program is started by.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"gatehouse.dev/gatehouse/test/cluster/internal/build"
	"gatehouse.dev/gatehouse/test/cluster/internal/container"
	"gatehouse.dev/gatehouse/test/cluster/internal/lab"
)

func main() {
	// Not commands: what this program starts itself again as.
	switch {
	case container.Reexec(os.Args):
		container.Main(os.Args)
	case lab.Supervises(os.Args):
		os.Exit(lab.Supervise())
	case lab.Tries(os.Args):
		os.Exit(lab.Try())
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := command().ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "gatehouse-cluster:", err)
		os.Exit(1)
	}
}

func command() *cobra.Command {
	root := &cobra.Command{
		Use: "gatehouse-cluster", Short: "a Kubernetes cluster for tests, without containers",
		SilenceErrors: true, SilenceUsage: true,
	}
	root.SetOut(os.Stdout)
	state := root.PersistentFlags().String("state", filepath.Join(".state", "cluster"),
		"folder of the cluster: its kubeconfig, logs and data; each cluster has its own")
	folder := func() (lab.State, error) {
		path, err := filepath.Abs(*state)
		return lab.State{Folder: path}, err
	}
	root.AddCommand(up(folder), down(folder), image(folder), buildCommand(), check())
	return root
}

func up(folder func() (lab.State, error)) *cobra.Command {
	var o lab.Options
	var images []string
	c := &cobra.Command{
		Use: "up", Short: "start a cluster and say how to use it", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			var err error
			if o.State, err = folder(); err != nil {
				return err
			}
			if err := lab.Check(); err != nil {
				return err
			}
			if o.ControlPlane == "" {
				if o.ControlPlane, err = controlPlane(c); err != nil {
					return err
				}
			}
			if err := load(o.State, images); err != nil {
				return err
			}
			info, err := lab.Up(c.Context(), o)
			if err != nil {
				return err
			}
			explain(c, o.State, info)
			return nil
		},
	}
	c.Flags().StringVar(&o.Range, "range", "",
		"the /16 of IPv4 addresses for the cluster (default the first that is free of 10.88.0.0/16 to 10.119.0.0/16)")
	c.Flags().StringVar(&o.ControlPlane, "control-plane", "", "the program of the control plane (default the one that build builds)")
	c.Flags().StringArrayVar(&images, "image", nil, "NAME=PROGRAM: the local program that an image stands for; may be repeated")
	c.Flags().BoolVar(&o.Lifeline, "lifeline", false, "end the cluster when the standard input ends")
	return c
}

// controlPlane builds the control plane if it has to.
func controlPlane(c *cobra.Command) (string, error) {
	folder, err := build.Folder(".")
	if err != nil {
		return "", err
	}
	program := build.ControlPlane(folder)
	_, built, err := program.Path()
	if err != nil {
		return "", err
	}
	if !built {
		if _, err := exec.LookPath("go"); err != nil {
			return "", errors.New("the control plane is not built and the go command is missing: install Go 1.21 or newer (https://go.dev/dl)")
		}
		c.PrintErrln("building the control plane from Kubernetes' sources: several minutes, once")
	}
	return program.Build(c.Context(), c.ErrOrStderr())
}

// load makes programs stand for images.
func load(state lab.State, images []string) error {
	for _, text := range images {
		name, program, ok := strings.Cut(text, "=")
		if !ok {
			return fmt.Errorf("image %q: want NAME=PROGRAM", text)
		}
		if err := state.Images().Load(name, program); err != nil {
			return err
		}
	}
	return nil
}

// explain says what to do with the cluster.
func explain(c *cobra.Command, state lab.State, info *lab.Info) {
	c.Printf("cluster is ready: pods %s, services %s, load balancers %s\n\n", info.Pods, info.Services, info.LoadBalancers)
	c.Printf("export KUBECONFIG=%s\n", info.Kubeconfig)
	if _, err := exec.LookPath("kubectl"); err != nil {
		c.Printf("export PATH=\"$PATH:%s\"    # kubectl\n", filepath.Dir(info.Kubectl))
	}
	c.Printf("\nimages:  gatehouse-cluster --state %s image NAME=PROGRAM\nlogs:    %s, %s\nend it:  gatehouse-cluster --state %s down\n",
		state.Folder, state.Log(), filepath.Join(state.Folder, "plane", "log"), state.Folder)
}

func down(folder func() (lab.State, error)) *cobra.Command {
	return &cobra.Command{
		Use: "down", Short: "end the cluster and remove everything of it", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			state, err := folder()
			if err != nil {
				return err
			}
			wasRunning, err := lab.Down(state)
			if err == nil && !wasRunning {
				c.Println("no cluster is running in", state.Folder)
			}
			return err
		},
	}
}

func image(folder func() (lab.State, error)) *cobra.Command {
	return &cobra.Command{
		Use: "image NAME=PROGRAM...", Short: "make local programs stand for images", Args: cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			state, err := folder()
			if err != nil {
				return err
			}
			return load(state, args)
		},
	}
}

func buildCommand() *cobra.Command {
	var only bool
	c := &cobra.Command{
		Use: "build", Short: "build the control plane if it is not built, and print its path", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			path, err := "", error(nil)
			if only {
				path, err = builtPlane()
			} else {
				path, err = controlPlane(c)
			}
			if err == nil {
				c.Println(path)
			}
			return err
		},
	}
	c.Flags().BoolVar(&only, "check", false, "do not build; fail if the control plane is not built")
	return c
}

// builtPlane returns the control plane's program, which must be there already.
func builtPlane() (string, error) {
	folder, err := build.Folder(".")
	if err != nil {
		return "", err
	}
	path, built, err := build.ControlPlane(folder).Path()
	if err == nil && !built {
		err = errors.New("the test cluster's control plane is not built: make cluster-up builds it, which takes minutes, once")
	}
	return path, err
}

func check() *cobra.Command {
	return &cobra.Command{
		Use: "check", Short: "say what keeps a cluster from running here", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return lab.Check() },
	}
}
