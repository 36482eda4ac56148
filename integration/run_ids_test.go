//go:build linux

package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/integration/lab"
)

// The ids of somebody whom the host has given some: the last one of them is the proxy's. The number is above those that useradd gives, and within an
// image's.
const (
	rangedID    = 64713
	firstSub    = 300000
	subs        = 1 << 16
	proxyOfSubs = firstSub + subs - 1
)

// newRanged is an ordinary user with subordinate ids. /etc is the lab's own.
func newRanged(t testing.TB) person {
	t.Helper()
	Require(t, "newuidmap")
	p := newPerson(t, "ranged", rangedID)
	appendTo(t, "/etc/passwd", fmt.Sprintf("ranged:x:%d:%d::%s:/bin/sh\n", rangedID, rangedID, p.home))
	for _, file := range []string{"/etc/subuid", "/etc/subgid"} {
		appendTo(t, file, fmt.Sprintf("ranged:%d:%d\n", firstSub, subs))
	}
	return p
}

// eachPersonAndRanged runs test as somebody with subordinate ids, too.
func eachPersonAndRanged(t *testing.T, test func(t *testing.T, p person)) {
	eachPerson(t, test)
	t.Run("ranged", func(t *testing.T) { test(t, newRanged(t)) })
}

// appendTo adds to a file for the time of the test.
func appendTo(t testing.TB, file, text string) {
	t.Helper()
	before, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, append(before, text...), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(file, before, 0o644); err != nil {
			t.Error(err)
		}
	})
}

// idmapped shows a folder of the host with root's files as the person's, and others' as those of subordinate ids.
func (p person) idmapped(t *testing.T, folder string) string {
	t.Helper()
	maps := []syscall.SysProcIDMap{{ContainerID: 0, HostID: int(p.id), Size: 1}, {ContainerID: 1, HostID: firstSub, Size: subs - 1}}
	holder := exec.Command("sleep", "1000")
	holder.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER, UidMappings: maps, GidMappings: maps, Pdeathsig: syscall.SIGKILL}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	defer holder.Wait()
	defer holder.Process.Kill()
	users, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", holder.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	defer users.Close()
	tree, err := unix.OpenTree(unix.AT_FDCWD, folder, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(tree)
	at, err := os.MkdirTemp("/srv", "idmapped-")
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(users.Fd())}),
		unix.MoveMount(tree, "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if err := errors.Join(unix.Unmount(at, 0), os.Remove(at)); err != nil {
			t.Error(err)
		}
	})
	return at
}

// proxyOf is whom the proxy of a running sandbox is, as its state and as the kernel have it.
func (p person) proxyOf(t *testing.T, name string) (state, kernel uint32) {
	t.Helper()
	var st struct {
		Proxy struct {
			PID int    `json:"pid"`
			UID uint32 `json:"uid"`
		} `json:"proxy"`
	}
	got := finish(t, p.command(t, "inspect", "--json", name))
	if err := json.Unmarshal([]byte(got.Stdout), &st); err != nil {
		t.Fatalf("%v: %s", err, got)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", st.Proxy.PID))
	if err != nil {
		t.Fatal(err)
	}
	_, ids, _ := strings.Cut(string(status), "\nUid:")
	if _, err := fmt.Sscan(ids, &kernel); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(status), "Name:\tcofferdam-proxy\n") {
		t.Errorf("the proxy is called %.40q", status)
	}
	return st.Proxy.UID, kernel
}

// Whoever has subordinate ids is still the caller inside, and the proxy is nobody else.
func TestRunWithSubordinateIDs(t *testing.T) {
	Require(t, needShim, needImage)
	lab.Get(t)
	for _, test := range []struct {
		name   string
		person func(t testing.TB) person
		proxy  uint32
		maps   int
	}{
		{"some", newRanged, proxyOfSubs, 3},
		{"none", func(t testing.TB) person { return newPerson(t, "user", 4711) }, 4711, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := test.person(t)
			before := lab.Take()
			cmd := p.command(t, "run", "--name", "with-ids", "--allow", "good.test", "--read", p.dir, "sh", "-c", `id -u; id -g; wc -l </proc/self/uid_map; wc -l </proc/self/gid_map; echo made >made; chown $(id -u):$(id -g) made && echo own
				chown 1 made 2>/dev/null || echo refused; grep CapEff /proc/self/status; `+p.dir+`/probe https good.test:443 good.test >/dev/null && echo reached; echo --; read x`)
			in, out := talk(t, cmd)
			text := make([]byte, 0, 4096)
			for !strings.HasSuffix(string(text), "--\n") {
				one := make([]byte, 512)
				n, err := out.Read(one)
				if text = append(text, one[:n]...); err != nil {
					t.Fatalf("%v after %q", err, text)
				}
			}
			want := fmt.Sprintf("%d\n%d\n%d\n%d\nown\nrefused\nCapEff:\t0000000000000000\nreached\n--\n", p.id, p.id, test.maps, test.maps)
			if string(text) != want {
				t.Errorf("got %q\nwant %q", text, want)
			}
			state, kernel := p.proxyOf(t, "with-ids")
			if kernel != test.proxy {
				t.Errorf("the proxy is %d, want %d", kernel, test.proxy)
			}
			if test.proxy == proxyOfSubs && state != kernel {
				t.Errorf("the state says that the proxy is %d", state)
			}
			in.Close()
			_ = cmd.Wait()
			var st unix.Stat_t
			if err := unix.Stat(filepath.Join(p.workspace(), "made"), &st); err != nil || st.Uid != p.id || st.Gid != p.id {
				t.Errorf("what the agent made belongs to %d:%d, %v", st.Uid, st.Gid, err)
			}
			lab.NoLeftovers(t, before, notOfASandbox...)
		})
	}
}

// A binary in a home that is closed to others, SIGKILL, a proxy that is started anew: nothing of it hangs on whose the proxy is.
func TestRunWithSubordinateIDsFromAHome(t *testing.T) {
	Require(t, needShim, needImage)
	lab.Get(t)
	p := newRanged(t)
	bin := filepath.Join(p.home, "bin")
	p.install(t, bin)
	before := lab.Take()
	script := fmt.Sprintf(`echo ready; read x; for i in 1 2 3 4 5 6 7 8 9 10; do %s/probe https good.test:443 good.test >/dev/null && echo reached && break; sleep 0.2; done; read x`, p.dir)
	cmd := p.command(t, "run", "--name", "home", "--allow", "good.test", "--read", p.dir, "sh", "-c", script)
	cmd.Path = filepath.Join(bin, "cofferdam")
	in, out := talk(t, cmd)
	if line := make([]byte, 16); !readLine(out, line, "ready\n") {
		t.Fatalf("%q", line)
	}
	if _, kernel := p.proxyOf(t, "home"); kernel != proxyOfSubs {
		t.Errorf("the proxy is %d", kernel)
	}
	if err := exec.Command("pkill", "-9", "-P", fmt.Sprint(cmd.Process.Pid), "cofferdam-proxy").Run(); err != nil {
		t.Fatalf("kill the proxy: %v", err)
	}
	if _, err := in.Write([]byte("\n")); err != nil {
		t.Fatal(err)
	}
	if line := make([]byte, 16); !readLine(out, line, "reached\n") {
		t.Errorf("after the proxy was killed: %q", line)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	eventually(t, "processes are gone", func() bool {
		return !strings.Contains(strings.Join(lab.Take().Since(before), "\n"), "process ")
	})
	if got := finish(t, p.command(t, "gc")); got.Code != 0 {
		t.Errorf("gc: %s", got)
	}
	lab.NoLeftovers(t, before, notOfASandbox...)
	// Without the right to execute it the proxy stays the caller.
	if err := os.Chmod(filepath.Join(bin, "cofferdam-proxy"), 0o700); err != nil {
		t.Fatal(err)
	}
	cmd = p.command(t, "run", "true")
	cmd.Path = filepath.Join(bin, "cofferdam")
	if got := finish(t, cmd); got.Code != 0 || !strings.Contains(got.Stderr, "one user id: ") || !strings.Contains(got.Stderr, "chmod o+rx "+bin+"/cofferdam-proxy") {
		t.Errorf("a proxy that is closed to others: %s", got)
	}
}

// readLine reads a line, and reports whether it is the wanted one.
func readLine(from interface{ Read([]byte) (int, error) }, line []byte, want string) bool {
	n := 0
	for n < len(line) && !strings.HasSuffix(string(line[:n]), "\n") {
		m, err := from.Read(line[n : n+1])
		if err != nil {
			return false
		}
		n += m
	}
	return string(line[:n]) == want
}

// Root of an image is several users, whose files are the caller's and of subordinate ids outside, in the workspace too.
func TestRunAsRootOfAnImage(t *testing.T) {
	Require(t, needShim, needImage)
	lab.Get(t)
	script := `id -u; touch root other; mkdir folder sticky; chmod 1777 sticky; chown 42:43 other folder && echo changed
		chown 4294967294 other 2>/dev/null || echo none
		probe as 42 43 sh -c 'id -u; id -g; touch folder/made sticky/made; echo x >>other; touch top 2>/dev/null || echo refused; chown 44 other 2>/dev/null || echo refused; echo x >/etc/passwd || echo refused' 2>/dev/null | grep -v attempt || echo nobody else
		rm sticky/made && chown 0 folder/made && echo root`
	for _, test := range []struct {
		name   string
		person func(t testing.TB) person
		want   string
		owner  uint32
	}{
		{"with subordinate ids", newRanged, "0\nchanged\nnone\n42\n43\nrefused\nrefused\nrefused\nroot\n", firstSub + 41},
		{"without", func(t testing.TB) person { return newPerson(t, "user", 4711) }, "0\nnone\nnobody else\n", 4711},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := test.person(t)
			root := filepath.Join(p.home, "root")
			for from, to := range map[string]string{"/bin/busybox": "bin/busybox", filepath.Join(p.dir, "probe"): "bin/probe"} {
				data, err := os.ReadFile(from)
				if err == nil {
					err = errors.Join(os.MkdirAll(filepath.Join(root, "bin"), 0o755), os.MkdirAll(filepath.Join(root, "etc"), 0o755), os.WriteFile(filepath.Join(root, to), data, 0o755))
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			if out, err := exec.Command("sh", "-ec", "cd $1; for a in sh id grep touch mkdir chmod chown rm; do ln -s busybox bin/$a; done; touch etc/passwd; chown -R $2:$2 .", "sh", root, fmt.Sprint(p.id)).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			got := p.run(t, "--rootfs", root, "--as-root", "--env", "PATH=/bin", "--", "sh", "-c", script)
			if got.Stdout != test.want {
				t.Errorf("got %s\nwant %q", got, test.want)
			}
			for name, owner := range map[string]uint32{"root": p.id, "other": test.owner} {
				var st unix.Stat_t
				if err := unix.Stat(filepath.Join(p.workspace(), name), &st); err != nil || st.Uid != owner {
					t.Errorf("%s belongs to %d, want %d: %v", name, st.Uid, owner, err)
				}
			}
		})
	}
	p := newPerson(t, "user", 4711)
	if got := p.run(t, "--as-root", "true"); got.Code != 125 || !strings.Contains(got.Stderr, "--as-root: a root file system is needed") {
		t.Errorf("without --rootfs: %s", got)
	}
}

// A host whose newuidmap gives nothing out is as one without: that is said, and --strict refuses.
func TestRunWithoutTheHelpOfNewuidmap(t *testing.T) {
	Require(t, needShim, needImage)
	lab.Get(t)
	p := newRanged(t)
	if got := p.run(t, "true"); got.Code != 0 || strings.Contains(got.Stderr, "one user id") {
		t.Errorf("with it: %s", got)
	}
	if err := unix.Mount("/bin/false", "/usr/bin/newuidmap", "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount("/usr/bin/newuidmap", 0); err != nil {
			t.Error(err)
		}
	})
	got := p.run(t, "sh", "-c", "id -u; wc -l </proc/self/uid_map")
	if got.Stdout != fmt.Sprintf("%d\n1\n", p.id) || !strings.Contains(got.Stderr, "warning: one user id: ") || !strings.Contains(got.Stderr, "newuidmap does not give out") {
		t.Errorf("without it: %s", got)
	}
}

func TestRunSaysWhatIsWrongWithSubordinateIDs(t *testing.T) {
	Require(t, needShim, needImage, "newuidmap")
	lab.Get(t)
	p := newPerson(t, "user", 4711)
	if got := p.run(t, "true"); got.Code != 0 || !strings.Contains(got.Stderr, "usermod --add-subuids 100000-165535 --add-subgids 100000-165535 user") {
		t.Errorf("without any: %s", got)
	}
	appendTo(t, "/etc/subuid", "4711:many:65536\n")
	if got := p.run(t, "true"); got.Code != 125 || !strings.Contains(got.Stderr, `subordinate ids: /etc/subuid: user: "many" is not an id`) {
		t.Errorf("with a mistake: %s", got)
	}
}
