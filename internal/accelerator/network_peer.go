// SPDX-License-Identifier: Apache-2.0

package accelerator

import (
	"strings"

	"github.com/orb8/orb8/internal/event"
)

// peerKey tells peers apart: by what names them, where that is one and not many,
// else by address. Who is used in two ways is two.
type peerKey struct {
	name string
	ip   event.IP
	use  use
}

// use is what a connection is for, as far as its port tells.
type use uint8

const (
	useAny use = iota
	useDNS
	useNFS
	useISCSI
	useNVMe
	useSMB
	useLustre
	useGPFS
	useGluster
	useHDFS
	// Ports that others have, too.
	useCeph
)

var useNames = [...]string{useNFS: "nfs", useISCSI: "iscsi", useNVMe: "nvme", useSMB: "smb", useLustre: "lustre", useGPFS: "gpfs", useGluster: "gluster", useHDFS: "hdfs", useCeph: "ceph"}

// role is what a peer is for the holder.
type role uint8

const (
	rolePeer role = iota
	// It is not waited for: it is the holder itself, or tells it what to do.
	roleAside
	roleDNS
	roleStorage
)

func peerOf(f *event.Flow, u use) peerKey {
	r := f.Remote
	k := peerKey{use: u}
	switch {
	case r.PodUID != "":
		k.name = r.PodUID
	case r.FQDN != "":
		k.name = r.FQDN
	case r.Service != "":
		k.name = r.Service
	default:
		k.ip = f.Conn.Remote
	}
	return k
}

// useOf goes by the server's port: who has opened a connection from a port of NFS
// is a client.
func useOf(f *event.Flow) use {
	if f.OpenedBy == event.OpenerRemote {
		return useAny
	}
	switch port := f.Conn.RemotePort; port {
	case 53, 853, 5353:
		return useDNS
	case 2049, 20049:
		return useNFS
	case 3260:
		return useISCSI
	case 4420, 8009:
		return useNVMe
	case 445:
		return useSMB
	case 988:
		return useLustre
	case 1191:
		return useGPFS
	case 24007:
		return useGluster
	case 9866:
		return useHDFS
	case 3300, 6789:
		return useCeph
	default:
		if port >= 6800 && port <= 7568 {
			return useCeph
		}
	}
	return useAny
}

func roleOf(u use, f *event.Flow) role {
	r := f.Remote
	switch {
	case r.Class == event.ClassAPIServer, r.PodUID != "" && f.Local != nil && f.Local.PodUID == r.PodUID:
		return roleAside
	case u == useDNS:
		return roleDNS
	case isStore(r), u != useAny && u != useCeph, u == useCeph && r.Class != event.ClassPod && r.Class != event.ClassService:
		return roleStorage
	}
	return rolePeer
}

// isStore tells storage by its name.
func isStore(who *event.Identity) bool {
	if strings.HasPrefix(string(who.Class), string(event.ClassKernel)+":") {
		return storeWords[string(who.Class[len(event.ClassKernel)+1:])]
	}
	if who.FQDN != "" {
		return isStoreName(who.FQDN)
	}
	_, service, _ := strings.Cut(who.Service, "/")
	return hasWord(who.Workload.Name, "-.") || hasWord(service, "-.")
}

// storeWords are what storage in a cluster is called, and little else is.
var storeWords = map[string]bool{
	"alluxio": true, "beegfs": true, "ceph": true, "cephfs": true, "gluster": true, "glusterfs": true,
	"iscsi": true, "juicefs": true, "lustre": true, "minio": true, "nfs": true, "nfsrdma": true, "nvme": true,
	"rgw": true, "s3": true, "seaweedfs": true, "smb": true, "weka": true,
}

func hasWord(name, between string) bool {
	for name != "" {
		word, rest := name, ""
		if i := strings.IndexAny(name, between); i >= 0 {
			word, rest = name[:i], name[i+1:]
		}
		if storeWords[word] {
			return true
		}
		name = rest
	}
	return false
}

// storeDomains are those whose hosts are nothing but storage.
var storeDomains = []string{
	"storage.googleapis.com", "storage.cloud.google.com",
	"blob.core.windows.net", "dfs.core.windows.net", "file.core.windows.net", "blob.storage.azure.net", "blob.core.chinacloudapi.cn",
	"r2.cloudflarestorage.com", "digitaloceanspaces.com", "wasabisys.com", "backblazeb2.com", "linodeobjects.com",
	"vultrobjects.com", "storage.yandexcloud.net", "cloud-object-storage.appdomain.cloud", "your-objectstorage.com",
	"cwobject.com",
}

// isStoreName knows object stores: by their domain, and those that are called as
// Amazon's are, s3.eu-west-1.example.com, wherever they are.
func isStoreName(name string) bool {
	name = strings.TrimSuffix(name, ".")
	for _, domain := range storeDomains {
		if rest, ok := strings.CutSuffix(name, domain); ok && (rest == "" || rest[len(rest)-1] == '.') {
			return true
		}
	}
	aliyun, tencent := strings.HasSuffix(name, ".aliyuncs.com"), strings.HasSuffix(name, ".myqcloud.com")
	oracle, huawei := strings.HasSuffix(name, ".oraclecloud.com"), strings.HasSuffix(name, ".myhuaweicloud.com")
	google := strings.HasSuffix(name, ".rep.googleapis.com")
	for {
		label, rest, more := strings.Cut(name, ".")
		if !more {
			return false
		}
		switch {
		case label == "s3", strings.HasPrefix(label, "s3-"), strings.HasPrefix(label, "s3express-"), label == "minio",
			aliyun && strings.HasPrefix(label, "oss-"), tencent && label == "cos", huawei && label == "obs",
			oracle && label == "objectstorage", google && label == "storage":
			return true
		}
		name = rest
	}
}
