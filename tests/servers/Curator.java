import org.apache.curator.framework.CuratorFrameworkFactory;
import org.apache.curator.retry.RetryOneTime;
import org.apache.curator.x.discovery.ServiceDiscoveryBuilder;
import org.apache.curator.x.discovery.ServiceInstance;

/** See curator.sh. */
public class Curator {
    public static void main(String[] words) throws Exception {
        try (var client = CuratorFrameworkFactory.newClient(words[0], new RetryOneTime(100))) {
            client.start();
            var builder = ServiceDiscoveryBuilder.builder(Object.class).client(client).basePath(words[1]);
            try (var discovery = builder.build()) {
                discovery.start();
                if (words[2].equals("list")) {
                    for (var one : discovery.queryForInstances(words[3])) {
                        System.out.println(
                                one.getId() + " " + one.getAddress() + " " + one.getPort() + " " + one.getPayload());
                    }
                } else {
                    var instance = ServiceInstance.builder().name(words[3]).id(words[4])
                            .address("10.0.0.9").port(Integer.parseInt(words[5])).build();
                    discovery.registerService(instance);
                    System.out.println("registered");
                    while (System.in.read() >= 0) {}
                }
            }
        }
    }
}
