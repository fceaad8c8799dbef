import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.util.Arrays;
import java.util.Map;

import org.apache.cassandra.tools.NodeProbe;

/**
 * What nodetool does, without its start: one line on stdin is a command, one on stdout its answer.
 *
 * The arguments are the JMX ports of the nodes; a command begins with the number of one of them.
 */
public class NodeControl
{
    public static void main(String[] ports) throws Exception
    {
        NodeProbe[] nodes = new NodeProbe[ports.length];
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
        for (String line; (line = lines.readLine()) != null;)
        {
            String[] words = line.split(" ");
            int number = Integer.parseInt(words[0]);
            try
            {
                if (nodes[number] == null)
                    nodes[number] = new NodeProbe("127.0.0.1", Integer.parseInt(ports[number]));
                System.out.println("ok " + answer(nodes[number], words));
            }
            catch (Exception error)
            {
                nodes[number] = null;  // the node may have been restarted
                System.out.println("error " + error.toString().replaceAll("\\s+", " "));
            }
        }
        Runtime.getRuntime().halt(0);
    }

    private static String answer(NodeProbe node, String[] words) throws Exception
    {
        switch (words[1])
        {
            case "flush":
                node.forceKeyspaceFlush(words[2]);
                return "";
            case "snapshot":
                node.takeSnapshot(words[2], null, Map.of(), Arrays.copyOfRange(words, 3, words.length));
                return "";
            case "compact":
                node.forceKeyspaceCompaction(false, words[2]);
                return "";
            case "write-timeout":
                node.setTimeout("write", Long.parseLong(words[2]));
                return "";
            case "live":
                return String.join(" ", node.getLiveNodes(false));
            default:
                throw new IllegalArgumentException(words[1]);
        }
    }
}
