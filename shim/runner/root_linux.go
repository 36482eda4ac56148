package runner

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"cofferdam.dev/cofferdam/spec"
)

// merged are the folders that are links into /usr where a distribution has merged them, and folders of their own elsewhere.
var merged = []string{"/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"}

// shown are the other tools that are there on a host without being asked for; see spec.IsTool. A pattern may match several.
var shown = []string{
	"/usr", "/nix/store", "/gnu/store", "/etc/alternatives", "/etc/ca-certificates/extracted", "/etc/ssl/certs", "/etc/pki/ca-trust/extracted",
	"/etc/pki/tls/certs", "/etc/crypto-policies", "/etc/fonts", "/etc/java", "/etc/java-*", "/etc/maven",
}

// copied are the files of /etc that programs look into and that say nothing about who uses this host. What is not everybody's to read is
// left out, whatever its name.
var copied = []string{
	"debian_version", "gai.conf", "inputrc", "ld.so.cache", "ld.so.conf", "locale.alias", "locale.conf", "localtime", "magic", "man_db.conf",
	"manpath.config", "mime.types", "os-release", "protocols", "services", "shells", "ssl/openssl.cnf", "timezone",
}

// maxCopied bounds a copied file; the largest is the loader's cache, 100 KiB or so on a large system.
const maxCopied = 8 << 20

// toolchain is what this host has of programs: what is mounted, and the links that lead there.
type toolchain struct {
	tools []string
	links map[string]string
}

func findToolchain() (toolchain, error) {
	t := toolchain{links: map[string]string{}}
	for _, p := range merged {
		switch target, err := os.Readlink(p); {
		case err == nil:
			t.links[p] = target
		case errors.Is(err, fs.ErrNotExist):
		default: // EINVAL: it is no link
			t.tools = append(t.tools, p)
		}
	}
	for _, pattern := range shown {
		found, err := filepath.Glob(pattern)
		if err != nil {
			return toolchain{}, fmt.Errorf("tools %s: %w", pattern, err)
		}
		for _, p := range found {
			if st, err := os.Lstat(p); err == nil && st.IsDir() && spec.IsTool(p) {
				t.tools = append(t.tools, p)
			}
		}
	}
	return t, nil
}

// makeRoot makes the root file system of an agent that has no image: empty folders to mount on, the links of the toolchain, and a small
// /etc. The agent sees it read-only.
func makeRoot(root string, r Request, t toolchain) error {
	folders := []string{"/proc", "/sys", "/dev", "/etc", "/tmp", "/run", "/var", "/usr", r.Home}
	var files []string
	for _, f := range r.Files {
		if within(f.Path, r.Home) {
			continue // it lies in the private home, which is mounted first
		}
		if st, err := os.Stat(f.Source); err == nil && !st.IsDir() {
			folders, files = append(folders, filepath.Dir(f.Path)), append(files, f.Path)
			continue
		}
		folders = append(folders, f.Path)
	}
	for _, d := range append(folders, t.tools...) {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			return fmt.Errorf("make root: %w", err)
		}
	}
	for _, at := range files {
		if err := os.WriteFile(filepath.Join(root, at), nil, 0o644); err != nil {
			return fmt.Errorf("make root: %w", err)
		}
	}
	links := map[string]string{"/var/tmp": "/tmp", "/var/run": "/run", "/etc/mtab": "/proc/self/mounts"}
	for _, set := range []map[string]string{t.links, links} {
		for at, target := range set {
			if err := os.Symlink(target, filepath.Join(root, at)); err != nil {
				return fmt.Errorf("make root: %w", err)
			}
		}
	}
	for _, set := range []map[string]string{etc(r), r.Git} {
		for name, text := range set {
			if err := os.WriteFile(filepath.Join(root, "etc", name), []byte(text), 0o644); err != nil {
				return fmt.Errorf("make root: %w", err)
			}
		}
	}
	for _, name := range copied {
		if err := copyPublic(filepath.Join("/etc", name), filepath.Join(root, "etc", name)); err != nil {
			return fmt.Errorf("make root: %w", err)
		}
	}
	return nil
}

// etc has the files of /etc that are made for the agent. resolv.conf is what the sandbox's own is mounted on.
func etc(r Request) map[string]string {
	user := fmt.Sprintf("%s:x:%d:%d::%s:/bin/sh\n", r.User, r.UID, r.GID, r.Home)
	group := fmt.Sprintf("%s:x:%d:\n", r.Group, r.GID)
	if r.UID != 0 {
		user = "root:x:0:0:root:/root:/usr/sbin/nologin\n" + user
	}
	if r.GID != 0 {
		group = "root:x:0:\n" + group
	}
	return map[string]string{
		"passwd":        user + "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
		"group":         group + "nogroup:x:65534:\n",
		"hosts":         "127.0.0.1\tlocalhost\n127.0.1.1\t" + hostname + "\n::1\tlocalhost\n",
		"hostname":      hostname + "\n",
		"nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nservices: files\nprotocols: files\n",
		"resolv.conf":   "",
	}
}

// hostname is every such agent's: the host's own says where it runs.
const hostname = "cofferdam"

// copyPublic copies a file that everybody may read; a link stays one. Nothing is done where there is none.
func copyPublic(from, to string) error {
	st, err := os.Lstat(from)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	if st.Mode()&fs.ModeSymlink != 0 {
		target, err := os.Readlink(from)
		if err != nil {
			return err
		}
		return os.Symlink(target, to)
	}
	if !st.Mode().IsRegular() || st.Mode().Perm()&0o004 == 0 || st.Size() > maxCopied {
		return nil
	}
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxCopied))
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o644)
}

func within(p, dir string) bool { return p == dir || strings.HasPrefix(p, dir+"/") }
