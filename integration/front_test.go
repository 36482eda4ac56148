//go:build linux

package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"cofferdam.dev/cofferdam/integration/attack"
	"cofferdam.dev/cofferdam/integration/ctrd"
	"cofferdam.dev/cofferdam/integration/lab"
)

// suid is the set-user-ID copy of the probe in the image.
const suid = "/usr/local/bin/probe-suid"

// fronts are all that there are: the shim on both containerds, for an agent that asks for nothing, for one that asks for everything, and
// for one that is not root; and the runner as root, as an ordinary user, and as one with subordinate ids.
var fronts = []front{
	{"shim-deb", inContainer("deb", nil, false), besideContainer("deb")},
	{"shim-deb-greedy", inContainer("deb", greedy, false), besideContainer("deb")},
	{"shim-deb-user", inContainer("deb", nil, true), besideContainer("deb")},
	{"shim-v2", inContainer("v2", nil, false), besideContainer("v2")},
	{"shim-v2-greedy", inContainer("v2", greedy, false), besideContainer("v2")},
	{"shim-v2-user", inContainer("v2", nil, true), besideContainer("v2")},
	{"run-root", inRun(func(t testing.TB) person { return newPerson(t, "root", 0) }), onHost},
	{"run-user", inRun(func(t testing.TB) person { return newPerson(t, "user", 4711) }), onHost},
	{"run-ranged", inRun(newRanged), onHost},
}

// broken is a front on which every wall is broken but I1: root of the host, in the network namespace of a sandbox.
var broken = front{"box-root", inBox("v2"), onHost}

// inBox has the probe in the network namespace of a container, with all rights.
func inBox(engine string) func(testing.TB, *ground, string) *servant {
	return func(t testing.TB, r *ground, policy string) *servant {
		t.Helper()
		a, _ := lab.Inside()
		box := Contained(t, Engine(t, engine), Policy(t, policy))
		probe := filepath.Join(a.Dir, "probe")
		return serve(t, exec.CommandContext(t.Context(), "nsenter", fmt.Sprintf("--net=/proc/%d/ns/net", box.PID(t)), probe, "serve"), r.place("/nonexistent", probe))
	}
}

// inContainer has the agent in a container under the shim: as its first process, or as one that is added for a user who is not root.
func inContainer(engine string, flags []string, user bool) func(testing.TB, *ground, string) *servant {
	return func(t testing.TB, r *ground, policy string) *servant {
		t.Helper()
		d, place := Engine(t, engine), r.place("/workspace", suid)
		if user {
			box := Contained(t, d, Policy(t, policy), flags...)
			box.User = "1000:1000"
			return serve(t, box.AttachExec(t, "probe", "serve"), place)
		}
		_, cmd := d.Attach(t, ctrd.Container{
			Image: agentImage, Runtime: ctrd.Cofferdam, Policy: Policy(t, policy), Workspace: Workspace(t), Flags: flags, Args: []string{"probe", "serve"},
		})
		return serve(t, cmd, place)
	}
}

// besideContainer has it in one of the stock runtime: privileged, in the host's network and among its processes, with the canary.
func besideContainer(engine string) func(testing.TB, *ground, attack.Down) *servant {
	return func(t testing.TB, r *ground, where attack.Down) *servant {
		t.Helper()
		flags := []string{"--privileged", "--allow-new-privs", "--env", labSecret + "=" + r.secret, "--mount", "type=cgroup,src=cgroup,dst=/sys/fs/cgroup,options=rw", "--mount", fmt.Sprintf("type=bind,src=%s,dst=%[1]s,options=rbind:rw", r.canary)}
		if where == attack.Outside {
			flags = append(flags, "--net-host", "--with-ns", "pid:/proc/1/ns/pid")
		}
		_, cmd := Engine(t, engine).Attach(t, ctrd.Container{
			Image: agentImage, Runtime: ctrd.Stock, Workspace: Workspace(t), Flags: flags, Args: []string{"probe", "serve"},
		})
		return serve(t, cmd, r.place("/workspace", suid))
	}
}

// inRun has the agent in cofferdam run, with a folder to read that has the probe.
func inRun(who func(testing.TB) person) func(testing.TB, *ground, string) *servant {
	return func(t testing.TB, r *ground, policy string) *servant {
		t.Helper()
		p := who(t)
		probe := filepath.Join(p.dir, "probe")
		cmd := p.command(t, "run", "--policy", p.write(t, ".config/cofferdam/policies/lab.yaml", policy), "--read", p.dir, "--", probe, "serve")
		cmd.Env = append(cmd.Env, labSecret+"="+r.secret)
		return serve(t, cmd, r.place(p.workspace(), probe))
	}
}

// onHost has it on the host, as root.
func onHost(t testing.TB, r *ground, where attack.Down) *servant {
	t.Helper()
	a, _ := lab.Inside()
	p := newPerson(t, "root", 0)
	args := []string{filepath.Join(a.Dir, "probe"), "serve"}
	if where == attack.Private {
		args = append([]string{"unshare", "-m", "-n", "--propagation", "private"}, args...)
	}
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	cmd.Dir, cmd.Env = p.workspace(), []string{"PATH=" + os.Getenv("PATH"), "HOME=" + p.home, labSecret + "=" + r.secret}
	return serve(t, cmd, r.place(p.workspace(), filepath.Join(p.dir, "probe")))
}

// labSecret is a variable with the secret, in the environment of whoever starts a sandbox, or works where the wall is down.
const labSecret = "COFFERDAM_LAB_SECRET"
